"""Who the bridge is to credentiald: the token's file as it is read anew, and those who are told of a change."""

import logging

import pytest

from bridged.resolver_identity import ClientTls, Identities, Identity
from bridged.settings import load
from bridged.token_file import TokenFile
from daemonkit.secret import Secret

FIRST = "dbs_first"


class File:
    """A file with a token in it, as a test writes it; None is none."""

    def __init__(self, text: str | None = FIRST) -> None:
        self.text = text
        self.renewed: list[str] = []
        token = None if text is None else Secret(text)
        self.token = TokenFile("path", token, lambda one: self.renewed.append(one.reveal()), self.read)

    def read(self, path: str) -> str:
        assert path == "path"
        if self.text is None:
            raise FileNotFoundError(2, "No such file or directory")
        return self.text

    def look(self, text: str | None) -> None:
        self.text = text
        self.token.use(self.token.read())


def test_another_token_is_told_of_once():
    file = File()
    for text in (FIRST, FIRST + "\n", "dbs_second\n", "dbs_second\r\n", FIRST):
        file.look(text)
    assert file.renewed == ["dbs_second", FIRST]


@pytest.mark.parametrize("text", ["", "\n", None, "dbs_a dbs_b", "dbs_\x00", "dbs_é"])
def test_what_is_no_token_changes_nothing_and_is_said_once_without_a_byte_of_it(text, caplog):
    file = File()
    file.look(text)
    file.look(text)
    said = [vars(one)["problem"] for one in caplog.records if one.levelno == logging.WARNING]
    assert file.renewed == []
    assert len(said) == 1
    assert "dbs_" not in said[0]


def test_a_file_that_comes_later_is_found_and_one_that_never_was_is_not_missed(caplog):
    file = File(None)
    file.look(None)
    assert caplog.records == []
    file.look("dbs_late")
    assert file.renewed == ["dbs_late"]


def test_who_follows_hears_of_each_change_and_of_nothing_else():
    identities, heard = Identities(Identity(token=Secret(FIRST))), []
    unfollow = identities.follow(lambda: heard.append(identities.current))
    identities.take_token(Secret(FIRST))
    identities.take_token(Secret("dbs_second"))
    identities.take_tls(ClientTls(ca=b"ca"))
    identities.take_tls(ClientTls(ca=b"ca"))
    unfollow()
    identities.take_token(Secret("dbs_third"))

    assert heard == [
        Identity(token=Secret("dbs_second")),
        Identity(token=Secret("dbs_second"), tls=ClientTls(ca=b"ca")),
    ]
    assert identities.current.metadata == (("authorization", "Bearer dbs_third"),)
    assert Identity(tls=ClientTls(ca=b"ca")).metadata == ()
    assert "dbs_third" not in repr(identities.current)


@pytest.mark.parametrize(
    ("environ", "files", "token_file"),
    [
        ({}, {}, "credentiald.bridge-token"),
        ({}, {"credentiald.bridge-token": "dbs_x"}, "credentiald.bridge-token"),
        ({"BRIDGED_CREDENTIALD_TOKEN": "dbs_x"}, {"credentiald.bridge-token": "dbs_y"}, ""),
        ({"BRIDGED_CREDENTIALD_TOKEN_FILE": "/t"}, {"/t": "dbs_x"}, "/t"),
        ({"BRIDGED_CONFIG": "/c.yaml"}, {"/c.yaml": "credentiald_token: dbs_x"}, ""),
        ({"BRIDGED_CONFIG": "/c.yaml"}, {"/c.yaml": "credentiald_token_file: /t", "/t": "dbs_x"}, "/t"),
    ],
)
def test_the_token_is_followed_where_it_comes_from_a_file(environ, files, token_file):
    def read_file(path: str) -> str:
        try:
            return files[path]
        except KeyError:
            raise FileNotFoundError(2, "No such file or directory") from None

    assert load({}, environ, read_file=read_file).token_file == token_file


def test_a_certificate_stands_in_for_a_token():
    def read_file(path: str) -> str:
        raise FileNotFoundError(2, path)

    flags = {"credentiald_ca": "ca", "credentiald_cert": "c", "credentiald_key": "k"}
    assert load(flags, {}, read_file=read_file).warnings == ()
    assert len(load({}, {}, read_file=read_file).warnings) == 1
