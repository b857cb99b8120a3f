"""Files of rows with a model's turns: repaired and classified in constant memory."""
