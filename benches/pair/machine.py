"""The two namespaces in which the pair runs, and what processes cost: processor time and memory, read from /proc."""
import os
import re
import subprocess
import time

OUTER, INNER = "pair-a", "pair-b"
OUT_ADDR, IN_ADDR = "10.200.0.1", "10.200.0.2"
OUT_PORT, IN_PORT = 15001, 15443
HTTP1, SINK, HTTP2 = 18080, 18081, 18082
TICKS = os.sysconf("SC_CLK_TCK")

# Thousands of connections a second between the same two addresses run into the usual limits.
SETTINGS = {
    "net/ipv4/ip_local_port_range": "18100 64999",
    "net/ipv4/tcp_tw_reuse": "1",
    "net/ipv4/tcp_max_syn_backlog": "8192",
    "net/ipv4/tcp_max_tw_buckets": "300000",
    "net/core/somaxconn": "8192",
}


def run(*words, check=True):
    return subprocess.run(words, check=check, capture_output=True, text=True).stdout


def connect_namespaces():
    """Makes both namespaces anew, so that nothing of the peer before is left in them."""
    remove_namespaces()
    for name in (OUTER, INNER):
        run("ip", "netns", "add", name)
        run("ip", "-n", name, "link", "set", "lo", "up")
    run("ip", "link", "add", "pair-va", "netns", OUTER, "type", "veth", "peer", "name", "pair-vb", "netns", INNER)
    for name, link, address in ((OUTER, "pair-va", OUT_ADDR), (INNER, "pair-vb", IN_ADDR)):
        run("ip", "-n", name, "addr", "add", f"{address}/24", "dev", link)
        run("ip", "-n", name, "link", "set", link, "up")
        for key, value in SETTINGS.items():
            # A kernel without the setting does without it.
            run(*within(name), "sh", "-c", f"echo '{value}' >/proc/sys/{key}", check=False)


def remove_namespaces():
    for name in (OUTER, INNER):
        run("ip", "netns", "del", name, check=False)


def within(namespace, processor=None):
    """Returns the words that put a command into a namespace and on a processor."""
    words = ["ip", "netns", "exec", namespace]
    return words if processor is None else [*words, "taskset", "-c", str(processor)]


def processes():
    """Returns of every process its parent, and the ticks of user, system, and children that have ended."""
    found = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/stat") as file:
                text = file.read()
        except OSError:
            continue  # It has ended since.
        fields = text[text.rindex(")") + 2 :].split()
        found[int(name)] = (int(fields[1]), int(fields[11]), int(fields[12]), int(fields[13]) + int(fields[14]))
    return found


def family(root, found):
    """Returns a process and all below it."""
    members, waiting = [], [root]
    while waiting:
        pid = waiting.pop()
        if pid in found:
            members.append(pid)
            waiting += [child for child, (parent, *_) in found.items() if parent == pid]
    return members


class Moment:
    """What processes have used until now; two of them make a Span."""

    def __init__(self, proxies, own):
        found = processes()
        self.time = time.monotonic()
        self.proxies = [ticks(family(pid, found), found) for pid in proxies]
        ours = {os.getpid()}
        for pid in [*proxies, *own]:
            ours.update(family(pid, found))
        self.load = sum(sum(ticks(family(pid, found), found)) for pid in own)
        # Kernel threads (children of 2) work for us as well as for others. What began and ended in between shows at
        # its parent.
        self.others = {
            pid: user + system + ended
            for pid, (parent, user, system, ended) in found.items()
            if pid not in ours and parent != 2 and pid != 2
        }


def ticks(pids, found):
    return (sum(found[pid][1] for pid in pids) / TICKS, sum(found[pid][2] for pid in pids) / TICKS)


def span(start, end, load=0.0):
    """What was used between two moments; the load may have ended before the second and is then given."""
    seconds = end.time - start.time
    pairs = list(zip(start.proxies, end.proxies))
    out, inn = [sum(after) - sum(before) for before, after in pairs] or [0.0, 0.0]
    user = sum(after[0] - before[0] for before, after in pairs)
    foreign = sum(max(0, used - start.others.get(pid, 0)) for pid, used in end.others.items()) / TICKS
    return {
        "seconds": round(seconds, 3),
        "cpu_out": round(out, 3),
        "cpu_in": round(inn, 3),
        "cpu_pair": round(out + inn, 3),
        "cpu_user": round(user, 3),
        "cpu_load": round(max(0.0, end.load - start.load) + load, 3),
        "foreign": round(foreign / seconds, 3),
    }


def memory(root):
    """Returns the KiB that a process and all below it account for; shared pages count in parts."""
    total = 0
    for pid in family(root, processes()):
        with open(f"/proc/{pid}/smaps_rollup") as file:
            total += int(re.search(r"^Pss:\s+(\d+)", file.read(), re.M)[1])
    return total


def describe():
    """Returns one line on the machine: what it is, and how busy."""
    with open("/proc/cpuinfo") as file:
        model = re.search(r"^model name\s*:\s*(.*)$", file.read(), re.M)
    name = model[1] if model else os.uname().machine
    return f"{os.cpu_count()} processors ({name}), Linux {os.uname().release}"
