"""The tests: each starts from a pair that answers, loads it, and records what it took."""
import dataclasses
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import time

from machine import HTTP1, HTTP2, IN_ADDR, IN_PORT, INNER, OUT_PORT, OUTER, SINK
from machine import Moment, connect_namespaces, memory, remove_namespaces, run, span, within


class Broken(Exception):
    """A peer that does not start or does not answer; its other tests go on."""


@dataclasses.dataclass(frozen=True)
class Block:
    """Tests that share one start of the pair."""

    name: str
    ability: str
    mode: str
    backend: int
    tests: tuple
    resume: int = 0
    direct: bool = True


BLOCKS = (
    Block("bytes", "tcp", "tcp", SINK, ("bulk1", "bulk8", "bulk64")),
    Block("connections", "tcp", "tcp", HTTP1, ("ready", "hs_in", "churn", "h1_l4", "lat_l4")),
    Block("resumed", "tcp-resume", "tcp", HTTP1, ("churn_resume",), resume=1, direct=False),
    Block("http1", "http1", "http1", HTTP1, ("h1", "lat"), direct=False),
    Block("http2 opaque", "tcp", "tcp", HTTP2, ("h2_l4",)),
    Block("http2", "http2", "http2", HTTP2, ("h2",), direct=False),
    Block("memory", "tcp", "tcp", HTTP1, ("idle",), direct=False),
)
# Beyond what each tool runs by itself, before it counts as hung.
PATIENCE = 60
READY_MILLIS = 8000
# Of the log of a proxy that does not start, in bytes.
LAST_WORDS = 1000


class Rows:
    """Runs peers and collects results."""

    def __init__(self, here, scratch, options):
        self.here, self.scratch, self.options = here, scratch, options
        self.bin, self.pki, self.place = scratch / "bin", scratch / "pki", scratch / "run"
        self.load = str(self.bin / "load")
        self.results, self.proxies, self.backend = [], [], []
        self.peer = self.number = self.block = None
        run(str(here / "pki.sh"), str(self.pki))

    # -- peers

    def abilities(self, peer):
        return self.hook(peer, "caps").split()

    def hook(self, peer, command, block=BLOCKS[0]):
        words = ["bash", str(self.here / "peers" / f"{peer}.sh"), command]
        # A started proxy keeps the standard error of whoever started it.
        errors = subprocess.DEVNULL if command == "start" else subprocess.PIPE
        environment = self.environment(block)
        done = subprocess.run(
            words, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True, timeout=PATIENCE
        )
        if done.returncode:
            print(done.stderr or "", file=sys.stderr)
            raise Broken(f"{command} ended with {done.returncode}")
        return done.stdout.strip()

    def environment(self, block):
        options = self.options
        return os.environ | {
            "PAIR_BIN": str(self.bin),
            "PAIR_DIR": str(self.place),
            "PAIR_PKI": str(self.pki),
            "PAIR_MODE": block.mode,
            "PAIR_RESUME": str(block.resume),
            "PAIR_WORKERS": str(options.workers),
            "PAIR_OUT_PORT": str(OUT_PORT),
            "PAIR_IN_PORT": str(IN_PORT),
            "PAIR_IN_ADDR": IN_ADDR,
            "PAIR_BACKEND_PORT": str(block.backend),
            "PAIR_OUT_EXEC": " ".join(within(OUTER, options.out_cpu)),
            "PAIR_IN_EXEC": " ".join(within(INNER, options.in_cpu)),
        }

    def start(self, peer, block, number):
        """Starts application and pair, and waits until a request passes through both."""
        self.peer, self.block, self.number = peer, block, number
        shutil.rmtree(self.place, ignore_errors=True)
        self.place.mkdir(parents=True)
        connect_namespaces()
        self.start_backend()
        self.target = self.hook(peer, "target", block)
        self.hook(peer, "configure", block)
        waiting = None if block.backend == HTTP2 else self.tool("probe", self.target, str(READY_MILLIS))
        self.hook(peer, "start", block)
        files = [self.place / f"{side}.pid" for side in ("out", "in")]
        self.proxies = [int(file.read_text()) for file in files if file.exists()]
        self.ready_ms = self.wait_for_http2() if waiting is None else self.wait_for(waiting)
        time.sleep(0.3)

    def start_backend(self):
        text = (self.here / "backend.conf").read_text().replace("@DIR@", str(self.place))
        (self.place / "backend.conf").write_text(text)
        place = within(INNER, self.options.load_cpu)
        program = os.environ.get("NGINX", "nginx")
        nginx = [program, "-e", f"{self.place}/backend.err", "-c", f"{self.place}/backend.conf"]
        for words in (nginx, [self.load, "sink", str(SINK)]):
            self.backend.append(subprocess.Popen(place + words, stderr=subprocess.DEVNULL))
        time.sleep(0.5)

    def wait_for(self, waiting):
        answered, _ = waiting.communicate(timeout=PATIENCE)
        if waiting.returncode:
            for log in self.place.glob("*.log"):
                print(log.read_text()[-LAST_WORDS:], file=sys.stderr)
            raise Broken("did not become ready")
        launched = float((self.place / "launched").read_text())
        return round((float(answered) - launched) * 1000, 1)

    def wait_for_http2(self):
        end = time.monotonic() + READY_MILLIS / 1000
        while time.monotonic() < end:
            words = ["timeout", "2", "h2load", "-n1", "-c1", f"http://{self.target}/"]
            if "1 succeeded" in run(*within(OUTER, self.options.load_cpu), *words, check=False):
                return None
            time.sleep(0.2)
        raise Broken("answers no HTTP/2")

    def stop(self):
        if self.peer is not None:
            try:
                self.hook(self.peer, "stop", self.block)
            except Broken as broken:
                print(broken, file=sys.stderr)
        for process in self.backend:
            process.terminate()
        for process in self.backend:
            process.wait()
        self.peer, self.proxies, self.backend = None, [], []
        remove_namespaces()

    # -- measuring

    def measure(self, test):
        """Runs a test, once more if others disturbed it; what was disturbed stays marked."""
        if self.peer == "direct" and test in ("ready", "hs_in"):
            return
        for _ in range(self.options.repeats + 1):
            result = getattr(self, test)()
            disturbed = result.get("foreign", 0) > self.options.foreign
            self.record(test, disturbed=disturbed, **result)
            if not disturbed:
                return

    def record(self, test, **figures):
        result = {"peer": self.peer, "round": self.number, "test": test, **figures}
        self.results.append(result)
        print("  " + json.dumps(result), file=sys.stderr, flush=True)

    def tool(self, *words):
        return self.client([self.load, *words])

    def client(self, words):
        place = within(OUTER, self.options.load_cpu)
        pipe = subprocess.PIPE
        return subprocess.Popen(place + words, stdin=pipe, stdout=pipe, stderr=pipe, text=True)

    def moment(self, *own):
        return Moment(self.proxies, [process.pid for process in [*self.backend, *own]])

    def finish(self, client, start):
        """Waits for the client's end; returns what it printed and what all used meanwhile."""
        before = children()
        out, err = client.communicate(timeout=self.options.seconds * 4 + PATIENCE)
        return out + err, span(start, self.moment(), load=children() - before)

    # -- the tests

    def ready(self):
        return {"ready_ms": self.ready_ms}

    def bulk1(self):
        return self.bulk(1)

    def bulk8(self):
        return self.bulk(8)

    def bulk64(self):
        return self.bulk(64)

    def bulk(self, connections):
        seconds = self.options.seconds
        client = self.tool("bulk", self.target, str(connections), str(seconds + 4))
        time.sleep(1)
        start, (first, began) = self.moment(client), self.swallowed()
        time.sleep(seconds)
        (last, ended), end = self.swallowed(), self.moment(client)
        client.kill()
        client.communicate()
        used, gigabytes = span(start, end), (last - first) / 1e9
        if not gigabytes:
            raise Broken("not a byte arrived")
        rate, cost = gigabytes * 8 / (ended - began), used["cpu_pair"] / gigabytes
        return {"gbit_s": round(rate, 3), "cpu_s_gb": round(cost, 4), **used}

    def swallowed(self):
        ask = f"exec 3<>/dev/tcp/{IN_ADDR}/{SINK}; printf STAT >&3; cat <&3"
        return int(run(*within(OUTER, self.options.load_cpu), "bash", "-c", ask)), time.monotonic()

    def churn(self):
        return self.own_load("churn", self.target, "16", str(self.options.seconds))

    churn_resume = churn

    def lat(self):
        per_second, seconds = str(self.options.per_second), str(self.options.seconds + 2)
        return self.own_load("rate", self.target, "16", per_second, seconds)

    lat_l4 = lat

    def own_load(self, *words):
        client = self.tool(*words)
        text, used = self.finish(client, self.moment(client))
        figures = json.loads(text.strip().splitlines()[-1])
        if not figures["count"]:
            raise Broken(f"{words[0]}: not one request passed")
        return {**figures, "cpu_us": round(used["cpu_pair"] / figures["count"] * 1e6, 2), **used}

    def hs_in(self):
        """Handshakes made straight to the inbound proxy; each connection carries one request."""
        words = ["openssl", "s_time", "-connect", f"{IN_ADDR}:{IN_PORT}", "-tls1_3", "-new", "-www", "/"]
        words += ["-cert", f"{self.pki}/client.pem", "-key", f"{self.pki}/client.key"]
        words += ["-CAfile", f"{self.pki}/ca.pem", "-verify", "2", "-time", str(self.options.seconds)]
        client = self.client(words)
        text, used = self.finish(client, self.moment(client))
        found = re.search(r"(\d+) connections in [\d.]+ real seconds", text)
        if found is None or not int(found[1]):
            print(text[-LAST_WORDS:], file=sys.stderr)
            raise Broken("hs_in: not one handshake")
        count = int(found[1])
        rate, cost = count / used["seconds"], used["cpu_in"] / count * 1e6
        return {"count": count, "per_s": round(rate, 1), "cpu_us": round(cost, 1), **used}

    def h1(self):
        client = self.client(["wrk", "-t1", "-c64", f"-d{self.options.seconds + 2}s", f"http://{self.target}/"])
        time.sleep(1)
        text, used = self.finish(client, self.moment(client))
        rate = float(re.search(r"Requests/sec:\s+([\d.]+)", text)[1])
        errors = sum(map(int, re.findall(r"(?:connect|read|write|timeout|responses:) (\d+)", text)))
        return self.requests(rate, errors, used)

    h1_l4 = h1

    def h2(self):
        words = ["h2load", "-t1", "-c8", "-m32", f"-D{self.options.seconds + 1}", "--warm-up-time=1"]
        client = self.client([*words, f"http://{self.target}/"])
        time.sleep(1)
        text, used = self.finish(client, self.moment(client))
        rate = float(re.search(r"finished in [\d.]+\w+, ([\d.]+) req/s", text)[1])
        failed, errored = re.search(r"(\d+) failed, (\d+) errored", text).groups()
        return self.requests(rate, int(failed) + int(errored), used)

    h2_l4 = h2

    def requests(self, rate, errors, used):
        if not rate:
            raise Broken("not one request passed")
        cost = used["cpu_pair"] / (rate * used["seconds"]) * 1e6
        return {"per_s": rate, "errors": errors, "cpu_us": round(cost, 2), **used}

    def idle(self):
        """Memory with nothing to do, then with connections that have each carried one request."""
        time.sleep(1)
        alone, held = self.memory(), {}
        for count in filter(None, self.options.idle.split(",")):
            held[count] = self.holding(count, alone)
            time.sleep(2)
        return {"idle_kib": alone, "held": held, "after_kib": self.memory()}

    def holding(self, count, alone):
        client = self.tool("hold", self.target, count)
        held = int(client.stdout.readline().split()[1])
        time.sleep(2)
        start, kib = self.moment(client), self.memory()
        time.sleep(2)
        used = span(start, self.moment(client))
        client.communicate()
        each = [round((holding - idle) / held, 2) for holding, idle in zip(kib, alone)]
        percent = round(used["cpu_pair"] / used["seconds"] * 100, 2)
        return {"held": held, "kib": kib, "kib_each": each, "cpu_percent": percent}

    def memory(self):
        return [memory(pid) for pid in self.proxies]


def children():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
