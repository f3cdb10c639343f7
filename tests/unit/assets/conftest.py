from collections.abc import Iterator

import pytest
from file_server import FileServer, file_server


@pytest.fixture
def server(monkeypatch) -> Iterator[FileServer]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with file_server() as found:
        yield found
