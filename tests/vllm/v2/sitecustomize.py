"""Model Runner V2 on a CPU: Triton's kernels run in its interpreter, for correctness only.

Python runs this first in every process whose PYTHONPATH holds this folder.
"""

from __future__ import annotations

import os

if os.environ.get("TRITON_INTERPRET") == "1":
    from typing import Any

    import numpy as np
    from triton.backends import Backend, backends
    from triton.backends.compiler import GPUTarget
    from triton.backends.driver import DriverBase
    from triton.runtime import interpreter

    class _Driver(DriverBase):
        @classmethod
        def is_active(cls) -> bool:
            return True

        def get_current_device(self) -> int:
            return 0

        def get_current_stream(self, device: int = 0) -> int:
            return 0

        def get_current_target(self) -> GPUTarget:
            return GPUTarget("cpu", 0, 1)

        def get_active_torch_device(self) -> Any:
            import torch

            return torch.device("cpu")

        def map_python_to_cpp_type(self, ty: str) -> str:
            return ty

        def get_benchmarker(self) -> Any:
            raise NotImplementedError("nothing is tuned in an interpreter")

        def get_device_interface(self) -> Any:
            import torch

            return torch.cpu

    backends["cpu"] = Backend(compiler=type("NoCompiler", (), {}), driver=_Driver)

    class _Interpreter:
        """The interpreter, with masks as booleans: it refuses those that vLLM gives as integers."""

        def __init__(self, inner: Any) -> None:
            self._inner = inner

        def __getattr__(self, name: str) -> Any:
            return getattr(self._inner, name)

        def load(self, pointers: Any, mask: Any, other: Any, dtype: Any) -> Any:
            return self._inner.load(pointers, np.asarray(mask).astype(bool), other, dtype)

        def store(self, pointers: Any, value: Any, mask: Any) -> Any:
            return self._inner.store(pointers, value, np.asarray(mask).astype(bool))

    interpreter._interpreter = _Interpreter(interpreter._interpreter)
