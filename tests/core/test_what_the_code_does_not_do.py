"""What no module of ours does, but for those that are named here: processes, code from data, trust without a check.

Read from the source, so that it holds for what no other test runs.
"""

import ast
import builtins
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from daemonkit.health import _paths

ROOT = Path(__file__).parents[2]
PACKAGES = ("bridged", "credentiald", "daemonkit")
FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))

# Dotted names, whole or as the beginning of one. Who uses them is named beside, with the reason.
PROCESSES = ("subprocess", "os.system", "os.popen", "os.exec", "os.spawn", "os.posix_spawn", "os.fork", "pty",
             "multiprocessing", "asyncio.create_subprocess", "concurrent.futures.ProcessPoolExecutor")  # fmt: skip
MAY_START_PROCESSES = {
    "credentiald/aws/killable.py": "the operator's own credential_process, without a shell",
    "daemonkit/supervisor.py": "workers of the same program",
}
CODE_FROM_DATA = ("pickle", "marshal", "shelve", "dill", "eval", "exec", "compile", "__import__", "code", "codeop",
                  "runpy", "yaml.unsafe_load", "yaml.full_load", "yaml.Loader", "yaml.UnsafeLoader", "yaml.FullLoader",
                  "xml", "jinja2", "importlib.import_module")  # fmt: skip
MAY_MAKE_CODE = {"credentiald/cli/root.py": "commands are loaded when they are called, by names in the source"}
FOREIGN_MEMORY = ("ctypes", "cffi", "mmap")
MAY_TOUCH_MEMORY = {
    "bridged/serve.py": "mallopt(3)",
    "daemonkit/private_memory.py": "prctl(2)",
}
TRUST_WITHOUT_A_CHECK = ("ssl.CERT_NONE", "ssl.CERT_OPTIONAL", "ssl._create_unverified_context", "tempfile.mktemp")
MAY_CONNECT = {"bridged/resolver_addresses.py": "the names of credentiald"}
BUILT_IN = frozenset(dir(builtins))
DEBUGGING = ("pdb", "breakpoint", "faulthandler", "tracemalloc", "cProfile", "aiodebug", "code.interact",
             "socketserver", "http.server", "xmlrpc")  # fmt: skip


def _names_used(path: Path) -> Iterator[str]:
    """Every name from elsewhere that a module refers to, in full, built-in ones, and every module that it imports."""
    tree = tree_of(path)
    aliases: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for one in node.names:
                top = one.name.partition(".")[0]
                aliases[one.asname or top] = one.name if one.asname else top
                yield one.name
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for one in node.names:
                aliases[one.asname or one.name] = f"{node.module}.{one.name}"
                yield f"{node.module}.{one.name}"
    for node in ast.walk(tree):
        first, dot, rest = _dotted(node).partition(".")
        if first in aliases:
            yield aliases[first] + dot + rest
        elif first in BUILT_IN and not dot:
            yield first


@cache
def names_used(path: Path) -> frozenset[str]:
    return frozenset(_names_used(path))


def _dotted(node: ast.AST) -> str:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        before = _dotted(node.value)
        return f"{before}.{node.attr}" if before else ""
    return ""


def using(forbidden: tuple[str, ...]) -> dict[str, set[str]]:
    """The files that use any of these, with what they use. `os.exec` stands for `os.execv` and its like, too."""
    found: dict[str, set[str]] = {}
    for path in FILES:
        for name in names_used(path):
            for one in forbidden:
                is_family = "." in one and name.startswith(one)
                if name == one or name.startswith(f"{one}.") or is_family:
                    found.setdefault(str(path.relative_to(ROOT)), set()).add(one)
    return found


@pytest.mark.parametrize(
    ("forbidden", "allowed"),
    [
        (PROCESSES, MAY_START_PROCESSES),
        (CODE_FROM_DATA, MAY_MAKE_CODE),
        (FOREIGN_MEMORY, MAY_TOUCH_MEMORY),
        (TRUST_WITHOUT_A_CHECK, {}),
        (DEBUGGING, {}),
    ],
    ids=["processes", "code from data", "foreign memory", "trust", "debugging"],
)
def test_only_those_who_are_named_do_it(forbidden: tuple[str, ...], allowed: dict[str, str]) -> None:
    assert using(forbidden).keys() == allowed.keys()


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def calls() -> Iterator[tuple[str, ast.Call]]:
    for path in FILES:
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.Call):
                yield str(path.relative_to(ROOT)), node


# How a connection is begun, in the libraries that the bridge has.
_CONNECTS = frozenset({"create_connection", "open_connection", "sock_connect", "connect_ex", "ClientSession",
                       "TCPConnector", "HTTPConnection", "HTTPSConnection", "urlopen", "getaddrinfo"})  # fmt: skip


def test_there_is_one_place_from_which_a_bridge_connects_to_upstreams() -> None:
    # That is where addresses are judged (egress.py). gRPC, which asks credentiald, makes its connections by itself.
    connecting = {
        file for file, call in calls()
        if file.startswith("bridged/") and _dotted(call.func).rpartition(".")[2] in _CONNECTS
    }  # fmt: skip
    assert connecting - MAY_CONNECT.keys() == {"bridged/http1/connect.py"}


def test_nothing_goes_through_a_shell() -> None:
    named = [
        file for file, call in calls() for keyword in call.keywords
        if keyword.arg == "shell" or _dotted(call.func).endswith("create_subprocess_shell")
    ]  # fmt: skip
    assert named == []


def test_yaml_is_read_with_our_own_loader_that_makes_no_objects() -> None:
    read = [(file, call) for file, call in calls() if _dotted(call.func) in ("yaml.load", "yaml.load_all")]
    assert [file for file, _ in read] == ["daemonkit/yaml_document.py"]
    ((_, call),) = read
    assert [(one.arg, _dotted(one.value)) for one in call.keywords] == [("Loader", "_TextLoader")]
    (loader,) = [
        node for node in ast.walk(ast.parse((ROOT / "daemonkit/yaml_document.py").read_text()))
        if isinstance(node, ast.ClassDef) and node.name == "_TextLoader"
    ]  # fmt: skip
    assert [_dotted(base) for base in loader.bases] == ["yaml.BaseLoader"]


def test_no_certificate_goes_unchecked() -> None:
    switched_off = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in FILES
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Attribute) and target.attr in ("check_hostname", "verify_mode")
        and not (isinstance(node.value, ast.Attribute) and node.value.attr == "CERT_REQUIRED")
    ]  # fmt: skip
    assert switched_off == []
    assert [file for file, call in calls() for one in call.keywords if one.arg in ("verify", "check_hostname")] == []


def test_the_listeners_for_operators_have_three_paths_and_nobody_else_answers_with_that_library() -> None:
    assert _paths(list, CollectorRegistry()).keys() == {"/healthz", "/readyz", "/metrics"}
    # The demo upstream is a command of its own.
    assert using(("aiohttp.web",)).keys() == {
        "bridged/demo/server.py", "daemonkit/health.py", "daemonkit/http_server.py",
    }  # fmt: skip


def test_a_file_that_did_it_would_be_found(tmp_path: Path) -> None:
    source = tmp_path / "bad.py"
    source.write_text("from os import system as run\nimport pickle as p\nrun('x')\np.loads(b'')\neval('1')\n")
    assert {"os.system", "pickle", "pickle.loads", "eval"} <= names_used(source)
