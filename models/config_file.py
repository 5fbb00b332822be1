"""A checkpoint's config.json as an object like transformers' own, in milliseconds.

Importing transformers' configuration classes takes seconds, since their base class imports torch.
Yet what a file leaves out is theirs to decide: so the source of the classes that a file names is
read from the installed package, and their fields and `__post_init__` run on a base class of a few
lines. Where that does not work, `Unreadable` says so, and the caller takes transformers' own class.
"""

from __future__ import annotations
import __future__

import ast
import copy
import functools
import inspect
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

_PARTS = ("sub_configs_defaults", "sub_configs")  # what classes call their parts; older versions

# functions that classes call by name: up to 5.17 Qwen3.5's translates old names of layer types,
# which its checkpoints do not have
_CALLED = {"remap_legacy_layer_types": list}


class Unreadable(Exception):
    """A configuration that only transformers' own class can read."""


class ConfigFile:
    """Base class of the configuration classes that are read from source.

    Args:
        values: what the file says.

    Attributes:
        attribute_map: further names of fields.
    """

    attribute_map: ClassVar[dict[str, str]] = {}

    def __init__(self, **values: Any) -> None:
        named = type(self).fields()
        for name, other in type(self).attribute_map.items():  # a file may use either
            if name in values or other in values:
                given = values[other] if other in values else values[name]
                values.update({name: given, other: given})
        for name in named:
            if name in values:
                setattr(self, name, values.pop(name))
            else:
                setattr(self, name, copy.copy(getattr(type(self), name)))
        self.__post_init__(**values)

    def __post_init__(self, **others: Any) -> None:
        own = others.pop("per_layer_config", None)
        vars(self).update(others)
        if own is not None:
            layers = range(self.num_hidden_layers)
            self.per_layer_config = [
                self._with(own.get(i) or own.get(str(i)) or {}) for i in layers
            ]

    def __getattr__(self, name: str) -> Any:
        other = type(self).attribute_map.get(name)  # not found as such
        if other is None:
            raise AttributeError(f"the configuration has no {name}")
        return getattr(self, other)

    def _with(self, values: Mapping[str, Any]) -> ConfigFile:
        other = copy.copy(self)
        vars(other).update(values)
        return other

    @classmethod
    def fields(cls) -> list[str]:
        """Return the names of the fields that have a default, those of base classes first."""
        found: dict[str, None] = {}
        for one in reversed(cls.__mro__):
            if one is not ConfigFile and issubclass(one, ConfigFile):
                names = inspect.get_annotations(one)
                found |= dict.fromkeys(name for name in names if hasattr(one, name))
        return list(found)

    def get_text_config(self) -> Any:
        """Return the language model's part."""
        return getattr(self, "text_config", self)


def read_config(values: Mapping[str, Any]) -> ConfigFile:
    """Read a configuration with several parts.

    Args:
        values: the whole of a config.json.

    Returns:
        an object with the attributes that transformers' class would have.

    Raises:
        Unreadable: only that class itself can tell.
    """
    try:
        module, name = _find(str(values["model_type"]))
        whole = _build(module, name)(**values)
        for key, spec in _parts(module, name).items():
            setattr(whole, key, _part(module, key, spec, values))
    except Unreadable:
        raise
    except Exception as error:  # whatever the borrowed code did not find here
        raise Unreadable(f"{type(error).__name__}: {error}") from error
    return whole


def _part(module: Path, key: str, spec: ast.expr, whole: Mapping[str, Any]) -> ConfigFile | None:
    """Read one part: `spec` names its class, or is a call that names it or its model type."""
    given, told = whole.get(key), {}
    if isinstance(spec, ast.Call):
        told = {str(word.arg): word.value for word in spec.keywords}
        spec = told.get("config_class", spec)
    if given is None and "optional" in told:
        return None
    if isinstance(spec, ast.Name) and spec.id in _classes(module):
        kind = _build(module, spec.id)
        if given is None and key == "text_config":  # a flat file, as those of Qwen2.5-VL are
            given = {name: whole[name] for name in kind.fields() if name in whole}
    else:
        usual = ast.literal_eval(told["model_type"]) if "model_type" in told else ""
        kind = _build(*_find((given or {}).get("model_type", usual)))
    if given is None and "init_kwargs" in told:
        given = ast.literal_eval(told["init_kwargs"])
    return kind(**(given or {}))


def _find(model_type: str) -> tuple[Path, str]:
    """Find the file and the class of a model type; parts are in the folder of their whole."""
    package = find_spec("transformers")
    if package is None or not package.submodule_search_locations:
        raise Unreadable("transformers is not installed as files")
    words = model_type.replace("-", "_").split("_")
    for count in range(len(words), 0, -1):
        folder = "_".join(words[:count])
        module = Path(package.submodule_search_locations[0], "models", folder)
        module = module / f"configuration_{folder}.py"
        if module.is_file():
            for name, node in _classes(module).items():
                if _assigned(node).get("model_type") == repr(model_type):
                    return module, name
    raise Unreadable(f"no configuration class for {model_type!r}")


@functools.cache
def _classes(module: Path) -> dict[str, ast.ClassDef]:
    tree = ast.parse(module.read_text(encoding="utf-8"))
    return {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}


def _assigned(node: ast.ClassDef) -> dict[str, str]:
    """Return what a class assigns without a type, as source."""
    return {
        target.id: ast.unparse(line.value)
        for line in node.body
        if isinstance(line, ast.Assign)
        for target in line.targets
        if isinstance(target, ast.Name)
    }


def _parts(module: Path, name: str) -> dict[str, ast.expr]:
    assigned = _assigned(_classes(module)[name])
    for attribute in _PARTS:
        if attribute in assigned:
            parsed = ast.parse(assigned[attribute], mode="eval").body
            assert isinstance(parsed, ast.Dict)
            keys = [ast.literal_eval(key) for key in parsed.keys if key is not None]
            return dict(zip(keys, parsed.values, strict=True))
    return {}


@functools.cache
def _build(module: Path, name: str) -> type[ConfigFile]:
    """Make a class from its source: its fields, its further names, and what it derives."""
    node = copy.deepcopy(_classes(module)[name])
    bases = [ast.unparse(base) for base in node.bases]
    if any(base.rpartition(".")[2].lower() != "pretrainedconfig" for base in bases):
        raise Unreadable(f"{name} builds on {', '.join(bases)}")
    if _parts(module, name):  # which are read here; what its own code makes of them is not told
        node.body = [line for line in node.body if _untouched(line, _made(node))]
    node.bases, node.decorator_list = [ast.Name("ConfigFile", ast.Load())], []
    node.body = [_plain(line) for line in node.body if _kept(line)] or [ast.Pass()]
    code = ast.fix_missing_locations(ast.Module([node], []))
    names: dict[str, Any] = {"ConfigFile": ConfigFile, "__name__": __name__, **_CALLED}
    flags = __future__.annotations.compiler_flag  # types are not looked up
    exec(compile(code, str(module), "exec", flags, dont_inherit=True), names)
    made: type[ConfigFile] = names[name]
    return made


def _made(node: ast.ClassDef) -> set[str]:
    """Names of the attributes that a class's code sets."""
    found = (one for one in ast.walk(node) if isinstance(one, ast.Attribute))
    return {one.attr for one in found if isinstance(one.ctx, ast.Store)}


def _untouched(line: ast.stmt, made: set[str]) -> bool:
    if isinstance(line, ast.AnnAssign):
        return ast.unparse(line.target) not in made
    return not isinstance(line, ast.FunctionDef)


def _kept(line: ast.stmt) -> bool:
    if isinstance(line, ast.FunctionDef):
        if line.name == "__init__":
            raise Unreadable("a class that does not name its fields")
        derived = [ast.unparse(one) for one in line.decorator_list] == ["property"]
        return derived or line.name == "__post_init__"
    if isinstance(line, ast.Assign):
        return ast.unparse(line.targets[0]) == "attribute_map"
    return isinstance(line, ast.AnnAssign)


def _plain(line: ast.stmt) -> ast.stmt:
    """Return a field's line with its default alone, where it comes with a check of its values."""
    if isinstance(line, ast.AnnAssign) and isinstance(line.value, ast.Call):
        for word in line.value.keywords:
            if word.arg == "default":
                line.value = word.value
    return line
