"""Key material for the contract, read from a prompt or from stdin."""

from drawbridge.v1.provider_pb2 import AwsAccessKeyPair, KeyMaterial

from credentiald.cli.secrets_input import read_access_key, read_key


def read_api_key() -> KeyMaterial:
    """One key."""
    return KeyMaterial(api_key=read_key().reveal())


def read_access_key_pair() -> KeyMaterial:
    """An AWS access key: id, secret and perhaps a session token."""
    access_key_id, secret, session_token = read_access_key()
    pair = AwsAccessKeyPair(
        access_key_id=access_key_id.reveal(),
        secret_access_key=secret.reveal(),
        session_token=session_token.reveal() if session_token else "",
    )
    return KeyMaterial(aws_access_key_pair=pair)
