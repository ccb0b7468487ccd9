"""Small values that fit a schema of the package."""

from typing import Any

from paramgen.core.schema import load_schema


def example(name: str) -> Any:
    """The smallest value that fits a schema, or one of its ``$defs`` (``name#part``): required fields alone."""
    name, _, part = name.partition("#")
    root = load_schema(name)
    return _smallest(root["$defs"][part] if part else root, root)


def _smallest(schema: dict[str, Any], root: dict[str, Any]) -> Any:
    if "$ref" in schema:
        file, _, part = schema["$ref"].partition("#/$defs/")
        home = load_schema(file.removesuffix(".schema.json")) if file else root
        return _smallest(home["$defs"][part], home)
    if "allOf" in schema:
        merged: dict[str, Any] = {}
        for part in schema["allOf"]:
            merged |= {k: _smallest(v, root) for k, v in part.get("properties", {}).items()} or _smallest(part, root)
        return merged | {k: _smallest(schema["properties"][k], root) for k in schema.get("required", ())}
    for keyword in ("oneOf", "anyOf"):
        if keyword in schema:
            return _smallest(schema[keyword][0], root)
    if "const" in schema or "enum" in schema:
        return schema["const"] if "const" in schema else schema["enum"][0]
    kind = schema["type"] if isinstance(schema["type"], str) else schema["type"][0]
    if kind == "object":
        return {key: _smallest(schema["properties"][key], root) for key in schema.get("required", ())}
    if kind == "array":
        first = [_smallest(item, root) for item in schema.get("prefixItems", ())]
        return first + [_smallest(schema["items"], root) for _ in range(len(first), schema.get("minItems", 0))]
    return {
        "string": "x",
        "integer": schema.get("minimum", 0),
        "number": float(schema.get("minimum", 0)),
        "boolean": False,
    }[kind]
