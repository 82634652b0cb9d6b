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


def fields(detection):
    """The fields of a detection of pySigma, those that it refers to included."""
    from sigma.rule import SigmaDetection
    from sigma.types import SigmaFieldReference

    for item in detection.detection_items:
        if isinstance(item, SigmaDetection):
            yield from fields(item)
        else:
            yield from [item.field] if item.field else []
            yield from (value.field for value in item.value if isinstance(value, SigmaFieldReference))


def sigma(*paths):
    from sigma.collection import SigmaCollection
    from sigma.processing.pipeline import ProcessingPipeline

    directory, *pipelines = paths
    pipelines = sorted((ProcessingPipeline.from_yaml(open(path).read()) for path in pipelines), key=lambda pipeline: pipeline.priority)
    for path in sorted(glob.glob(os.path.join(directory, "**/*.yml"), recursive=True)):
        for rule in SigmaCollection.from_yaml(open(path).read()).rules:
            for pipeline in pipelines:
                pipeline.apply(rule)
            named = sorted({name for detection in rule.detection.detections.values() for name in fields(detection)})
            source = rule.logsource
            print(json.dumps([path, source.product, source.category, source.service, named]))
    return True


MODIFIERS = (
    "contains startswith endswith exists re cidr fieldref lt lte gt gte all cased neq windash base64 base64offset wide utf16be utf16 i m s expand"
    " minute hour day week month year"
).split()
VALUES = ["abcd", ["abcd", "efgh"], 5, True, "10.0.0.0/8"]


def modifiers():
    from sigma.collection import SigmaCollection

    keys = [[one] for one in MODIFIERS] + [[one, other] for one in MODIFIERS for other in MODIFIERS]
    for key, value in ((key, value) for key in keys for value in VALUES):
        rule = {"title": "t", "logsource": {"product": "p"}, "detection": {"s": {"|".join(["f", *key]): value}, "condition": "s"}}
        try:
            SigmaCollection.from_dicts([rule]).rules[0].detection.parsed_condition[0].parsed
            taken = True
        except Exception:
            taken = False
        print(json.dumps(["|".join(key), value, taken]))
    return True


CHECKS = {"schema": schema, "compose": compose, "sigma": sigma, "modifiers": modifiers}
sys.exit(0 if CHECKS[sys.argv[1]](*sys.argv[2:]) else 1)
