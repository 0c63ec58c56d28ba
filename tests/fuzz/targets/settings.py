"""YAML files with settings: settings, or errors; never anything else, whatever the file holds."""

import contextlib

from bridged import settings as bridged_settings
from credentiald import settings as credentiald_settings
from daemonkit.settings import ConfigErrors

FILE = "/settings.yaml"
WORDS = [
    b"listen: ",
    b"aibridge:\n",
    b"  providers:\n",
    b"  - type: openai\n",
    b"    name: a\n",
    b"    key: b\n",
    b"- ",
    b"{",
    b"}",
    b"[",
    b"]",
    b"&a ",
    b"*a",
    b"<<: *a\n",
    b"!!python/object:os.system ",
    b"? ",
    b": ",
    b"|\n",
    b">\n",
    b"---\n",
    b"%YAML 1.1\n",
    b"\t",
    b"'",
    b'"',
    b"~",
    b"null",
    b"007",
    b"0x1f",
    b"\xff",
    b"\xef\xbb\xbf",
    b"max_body: 1\n",
]
SEEDS = [
    b"listen: 127.0.0.1:0\ngrace: 5s\naibridge:\n  providers:\n  - type: openai\n    name: a\n    key: b\n",
    b"listen: [127.0.0.1:0, 'unix:/x']\nmax_body: 32MiB\nrate_limit: 007\n",
    b"aibridge: {enabled: true, providers: [{type: bedrock, bedrock_region: us-east-1}]}\n",
    b"",
    b"- a\n- b\n",
    b"a: &a [1]\nb: [*a, *a]\n",
]


def one_input(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    for module in (credentiald_settings, bridged_settings):
        with contextlib.suppress(ConfigErrors):
            module.load({"config": FILE}, {}, read_file=lambda _: text)
