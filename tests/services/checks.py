"""The checks of checks.sh: what is wrong goes to standard output, and the exit code is 1."""

import glob
import json
import os
import sys

import jsonschema
import yaml


def closed(schema):
    """The schema with every object that names its properties closed: what is written must be what is published."""
    if isinstance(schema, dict):
        schema = {key: closed(value) for key, value in schema.items()}
        if "properties" in schema and schema.get("type") == "object":
            schema.setdefault("additionalProperties", False)
    elif isinstance(schema, list):
        schema = [closed(value) for value in schema]
    return schema


def check(validator, document, name):
    errors = sorted(validator.iter_errors(document), key=lambda error: error.json_path)
    for error in errors:
        print(f"{name}: {error.json_path}: {error.message}")
    return not errors


def schema(path):
    with open(path) as file:
        text = json.load(file)
    jsonschema.Draft202012Validator.check_schema(text)
    formats = jsonschema.Draft202012Validator.FORMAT_CHECKER
    assert "date-time" in formats.checkers, "date-time is not judged without rfc3339-validator"
    validator = jsonschema.Draft202012Validator(closed(text), format_checker=formats)
    lines = [line for line in sys.stdin if line.strip()]
    good = [check(validator, json.loads(line), f"document {number}") for number, line in enumerate(lines, 1)]
    return bool(good) and all(good)


def compose(path):
    [found] = glob.glob(os.path.join(sys.prefix, "lib/python3*/site-packages/compose/config/compose_spec.json"))
    with open(found) as file:
        specification = json.load(file)
    with open(path) as file:
        document = yaml.safe_load(file)
    # The project's name came into the specification after that schema.
    assert isinstance(document.pop("name", ""), str)
    return check(jsonschema.Draft7Validator(specification), document, os.path.basename(path))


sys.exit(0 if {"schema": schema, "compose": compose}[sys.argv[1]](sys.argv[2]) else 1)
