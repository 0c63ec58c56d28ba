"""YAML files with settings. Every plain value stays the text that stands there, so that `007` is not a number.

Import it where a file is read, not at the top of a module: PyYAML takes time to load.
"""

from collections.abc import Hashable, Mapping
from typing import Any

import yaml


class _TextLoader(yaml.BaseLoader):
    """Builds mappings, lists and texts, nothing else, and refuses a key that is there twice."""

    def construct_scalar(self, node: yaml.ScalarNode) -> Any:
        text = super().construct_scalar(node)
        return "" if node.style is None and text in ("~", "null") else text

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise yaml.MarkedYAMLError(problem_mark=key_node.start_mark)
            if key in seen:
                raise ValueError(f"line {key_node.start_mark.line + 1}: {key} is there twice")
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


def parse_document(text: str) -> Mapping[str, object]:
    """The settings of a YAML file; nothing for an empty one.

    ValueError says in which line it cannot be read, and never quotes the file: there may be keys in it.
    """
    try:
        document = yaml.load(text, Loader=_TextLoader)  # noqa: S506 - the loader knows texts, lists and mappings only
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ValueError(f"line {line} is not valid YAML") from None
    except yaml.YAMLError:
        raise ValueError("it is not valid YAML") from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if document in (None, ""):
        return {}
    if not isinstance(document, dict):
        raise ValueError(  # noqa: TRY004 - the file is wrong, not a caller
            "it must hold settings, one a line, as in 'listen: 127.0.0.1:7410'"
        )
    return document
