"""Random tools and random arguments for them."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

Schema = dict[str, Any]

_KEYS = st.text("abcdefgé_ ", min_size=1, max_size=6)
_BARE_KEYS = st.text("abcdefgé_.-$@0", min_size=1, max_size=6)


def _bounded_integers(low: int, span: int) -> Schema:
    return {"type": "integer", "minimum": low, "maximum": low + span}


def _strings(low: int, span: int) -> Schema:
    return {"type": "string", "minLength": low, "maxLength": low + span}


SCALARS: st.SearchStrategy[Schema] = st.one_of(
    st.just({"type": "string"}),
    st.builds(_strings, st.integers(0, 4), st.integers(0, 9)),
    st.just({"type": "string", "format": "date"}),
    st.just({"type": "string", "pattern": "^[A-Z]{2}[0-9]+$"}),
    st.just({"type": "integer"}),
    st.builds(_bounded_integers, st.integers(-50, 50), st.integers(0, 200)),
    st.just({"type": "number"}),
    st.just({"type": "boolean"}),
    st.just({"type": ["string", "null"]}),
    st.just({"type": "integer", "nullable": True}),
    st.just({"const": "fixed"}),
    st.just({}),
    st.lists(st.text('xyzä"\\/ ', max_size=5), min_size=1, max_size=4, unique=True).map(
        lambda values: {"enum": values}
    ),
)


def _arrays(items: Schema, low: int, span: int) -> Schema:
    return {"type": "array", "items": items, "minItems": low, "maxItems": low + span}


@st.composite
def _objects(
    draw: st.DrawFn, values: st.SearchStrategy[Schema], keys: st.SearchStrategy[str] = _KEYS
) -> Schema:
    properties = draw(st.dictionaries(keys, values, max_size=5))
    schema: Schema = {"type": "object", "properties": properties}
    if properties:
        schema["required"] = draw(st.lists(st.sampled_from(sorted(properties)), unique=True))
    if draw(st.integers(0, 5)) == 0:
        schema["additionalProperties"] = draw(st.sampled_from([True, {"type": "integer"}]))
    return schema


def schemas(keys: st.SearchStrategy[str] = _KEYS) -> st.SearchStrategy[Schema]:
    return st.recursive(
        SCALARS,
        lambda inner: st.one_of(
            st.builds(_arrays, inner, st.integers(0, 2), st.integers(0, 3)),
            _objects(inner, keys),
            st.lists(inner, min_size=1, max_size=3).map(lambda options: {"anyOf": options}),
        ),
        max_leaves=6,
    )


def bare_toolsets() -> st.SearchStrategy[list[dict[str, Any]]]:
    """Tools whose arguments have names that can stand without quotes."""
    return toolsets(_BARE_KEYS)


@st.composite
def toolsets(draw: st.DrawFn, keys: st.SearchStrategy[str] = _KEYS) -> list[dict[str, Any]]:
    names = draw(
        st.lists(st.text("abc_.-9", min_size=1, max_size=8), min_size=1, max_size=4, unique=True)
    )
    return [{"name": name, "parameters": draw(_objects(schemas(keys), keys))} for name in names]
