"""Validates YAML against the schemas for editors, as an editor would.

Reads a JSON list of [schema's path, text of YAML] and prints a JSON list: null, or the first mistake.
"""

import json
import re
import sys

import jsonschema
import yaml


class Core(yaml.SafeLoader):
    """YAML 1.2's core schema, which editors go by: a date is text, and so is `on`."""


Core.yaml_implicit_resolvers = {}
for tag, pattern, first in [
    ("null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", list("tTfF")),
    ("int", r"^[-+]?[0-9]+$", list("-+0123456789")),
    ("float", r"^[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$", list("-+0123456789.")),
]:
    Core.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(pattern), first)


def with_text_as_keys(value):
    if isinstance(value, dict):
        return {str(key): with_text_as_keys(of) for key, of in value.items()}
    return [with_text_as_keys(of) for of in value] if isinstance(value, list) else value


validators, answers = {}, []
for path, text in json.load(sys.stdin):
    if path not in validators:
        with open(path, encoding="utf-8") as file:
            schema = json.load(file)
        jsonschema.Draft202012Validator.check_schema(schema)
        validators[path] = jsonschema.Draft202012Validator(schema)
    try:
        value = with_text_as_keys(yaml.load(text, Core))
        found = next(iter(validators[path].iter_errors(value)), None)
        answers.append(found and f"{'/'.join(map(str, found.absolute_path))}: {found.message[:200]}")
    except yaml.YAMLError as error:
        answers.append(f"no YAML: {error}"[:200])
json.dump(answers, sys.stdout)
