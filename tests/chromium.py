"""A headless Chromium for tests of pages, by the DevTools protocol over a pipe: no package and no port is needed."""

import fcntl
import json
import os
import select
import shutil
import signal
import tempfile
from pathlib import Path

PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
_PATIENCE = 120  # seconds


class Chromium:
    """One page. `requests` has the address of everything that it asked for; `close` ends the browser."""

    def __init__(self) -> None:
        self.profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        (commands, write), (self.read, answers) = os.pipe(), os.pipe()
        flags = ("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking")
        command = [PROGRAM, *flags, f"--user-data-dir={self.profile.name}", "--remote-debugging-pipe", "about:blank"]
        # Chromium reads commands from the file 3, and writes to 4. Neither may be one of ours before both are set.
        theirs = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in (commands, answers)]
        actions = [(os.POSIX_SPAWN_DUP2, end, number) for number, end in enumerate(theirs, 3)]
        actions.append((os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0))
        self.process = os.posix_spawn(PROGRAM, command, os.environ, file_actions=actions)
        for end in (commands, answers, *theirs):
            os.close(end)
        self.write = os.fdopen(write, "wb")
        self.left, self.number, self.session, self.requests = b"", 0, None, []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Network", "Page", "Runtime", "DOM"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters):
        """The result of a method of the protocol. Raises RuntimeError with Chromium's error."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        self.write.write(json.dumps(message).encode() + b"\0")
        self.write.flush()
        while (answer := self._next()).get("id") != self.number:
            if answer.get("method") == "Network.requestWillBeSent":
                self.requests.append(answer["params"]["request"]["url"])
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        return answer["result"]

    def _next(self):
        while b"\0" not in self.left:
            ready, _, _ = select.select([self.read], [], [], _PATIENCE)
            received = os.read(self.read, 1 << 20) if ready else b""
            if not received:
                raise RuntimeError("Chromium has ended" if ready else f"Chromium said nothing for {_PATIENCE} s")
            self.left += received
        message, self.left = self.left.split(b"\0", 1)
        return json.loads(message)

    def open(self, page: Path) -> None:
        """Show a file, and wait until its variable `ready`, a promise, is kept. Raises RuntimeError if it breaks."""
        self.requests.clear()
        self.call("Page.navigate", url=page.resolve().as_uri())
        while self.evaluate("document.readyState") != "complete":
            pass
        self.evaluate("ready")

    def evaluate(self, expression: str):
        """The value of JavaScript, or of its promise. Raises RuntimeError with what JavaScript threw."""
        done = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in done:
            raise RuntimeError(done["exceptionDetails"].get("exception", {}).get("description", str(done)))
        return done["result"].get("value")

    def choose_file(self, selector: str, path: Path) -> None:
        """Give an input the file that a person would choose."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", files=[str(path.resolve())], nodeId=node)

    def close(self) -> None:
        os.kill(self.process, signal.SIGKILL)
        os.waitpid(self.process, 0)
        self.write.close()
        os.close(self.read)
        self.profile.cleanup()
