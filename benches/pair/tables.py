"""Tables of results in Markdown: the targets with what was measured, then every figure."""
import pathlib
import re
import statistics

BEGIN, END = "<!-- pair: written by benches/pair/run -->", "<!-- pair: end -->"
OURS = "vouchsafe"
TUNNEL = "vouchsafe-tunnel"
NO_PROXY = "direct"
BEST = ("envoy", "haproxy", "nginx")

# What is asked for: title, whose figure it is, test, key, the peers to compare with (the best of them counts), and
# how many times theirs ours may be.
RATIOS = (
    ("bulk TCP, 1 connection, CPU s per GB", OURS, "bulk1", "cpu_s_gb", ("envoy",), 0.70),
    ("bulk TCP, 8 connections, CPU s per GB", OURS, "bulk8", "cpu_s_gb", ("envoy",), 0.70),
    ("new connection, full handshake, CPU us", OURS, "churn", "cpu_us", ("envoy",), 0.70),
    ("new connection over a pooled tunnel, CPU us", TUNNEL, "churn", "cpu_us", ("envoy",), 0.15),
    ("HTTP/1.1 over the TCP proxy, CPU us per request", OURS, "h1_l4", "cpu_us", ("envoy",), 0.50),
    ("HTTP/1.1 parsed, CPU us per request", OURS, "h1", "cpu_us", ("haproxy",), 0.90),
    ("HTTP/2 parsed, CPU us per request", OURS, "h2", "cpu_us", ("haproxy",), 1.0),
    ("latency, TCP proxy, p50 us", OURS, "lat_l4", "p50_us", BEST, 1.0),
    ("latency, TCP proxy, p99 us", OURS, "lat_l4", "p99_us", BEST, 1.0),
    ("latency, parsed, p50 us", OURS, "lat", "p50_us", BEST, 1.0),
    ("latency, parsed, p99 us", OURS, "lat", "p99_us", BEST, 1.0),
)
# And what is asked for as such: title, whose figure, test, key, at most.
BOUNDS = (
    ("idle sidecar, outbound, MiB", OURS, "idle", "mib_out", 10),
    ("idle sidecar, inbound, MiB", OURS, "idle", "mib_in", 10),
    ("idle connection with its own TLS session, outbound, KiB", OURS, "idle", "kib_out", 10),
    ("idle connection with its own TLS session, inbound, KiB", OURS, "idle", "kib_in", 10),
    ("idle connection in a pooled tunnel, outbound, KiB", TUNNEL, "idle", "kib_out", 4),
    ("idle connection in a pooled tunnel, inbound, KiB", TUNNEL, "idle", "kib_in", 4),
    ("start to ready, the pair, ms", OURS, "ready", "ready_ms", 50),
)
# Every figure: test, key, unit.
COST, RATE, P50, P99 = ("cpu_us", "CPU us"), ("per_s", "a second"), ("p50_us", "p50 us"), ("p99_us", "p99 us")
BYTES = (("cpu_s_gb", "CPU s/GB"), ("gbit_s", "Gbit/s"))
FIGURES = (
    *((test, *figure) for test in ("bulk1", "bulk8", "bulk64") for figure in BYTES),
    *((test, *figure) for test in ("churn", "churn_resume") for figure in (COST, RATE, P99)),
    ("hs_in", "cpu_us", "CPU us, inbound"),
    *((test, *figure) for test in ("h1_l4", "h1", "h2_l4", "h2") for figure in (COST, RATE)),
    *((test, *figure) for test in ("lat_l4", "lat") for figure in (P50, P99, ("p999_us", "p99.9 us"), COST)),
    ("idle", "mib_out", "MiB, outbound"),
    ("idle", "mib_in", "MiB, inbound"),
    ("idle", "kib_out", "KiB a connection, outbound"),
    ("idle", "kib_in", "KiB a connection, inbound"),
    ("ready", "ready_ms", "ms"),
)


class Figures:
    """Medians of what was measured. Disturbed runs count only where there is nothing else, and are marked."""

    def __init__(self, results):
        self.values, self.disturbed = {}, set()
        for result in results:
            for key, value in flat(result).items():
                place = (result["peer"], result["test"], key)
                self.values.setdefault(place, []).append((bool(result.get("disturbed")), value))

    def of(self, peer, test, key):
        """Returns the median, or nothing."""
        found = self.values.get((peer, test, key), [])
        calm = [value for disturbed, value in found if not disturbed]
        if found and not calm:
            self.disturbed.add((peer, test, key))
        return statistics.median(calm or [value for _, value in found]) if found else None

    def cell(self, peer, test, key):
        value = self.of(peer, test, key)
        if value is None:
            return "-"
        return number(value) + (" *" if (peer, test, key) in self.disturbed else "")


def flat(result):
    """Returns the figures of one run; of the counts of idle connections the highest."""
    figures = {key: value for key, value in result.items() if type(value) in (int, float)}
    if result["peer"] == NO_PROXY:
        figures = {key: value for key, value in figures.items() if not key.startswith("cpu")}
    if result["test"] == "idle" and result["idle_kib"]:
        figures["mib_out"], figures["mib_in"] = (kib / 1024 for kib in result["idle_kib"])
        if result["held"]:
            most = result["held"][max(result["held"], key=int)]
            figures["kib_out"], figures["kib_in"] = most["kib_each"]
    return figures


def number(value):
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def markdown(document):
    figures = Figures(document["results"])
    tables = [heading(document), targets(figures), everything(figures, list(document["versions"]))]
    if figures.disturbed:
        tables.append("\\* only runs that other processes disturbed")
    failed = [one for one in document["results"] if one["test"] == "broken"]
    broken = [f"- {one['peer']}, {one['block']}: {one['error']}" for one in failed]
    return "\n\n".join(filter(None, [*tables, "\n".join(broken)]))


def heading(document):
    versions = ", ".join(dict.fromkeys(version for peer, version in document["versions"].items() if peer != NO_PROXY))
    rounds = "one round"
    if document["rounds"] > 1:
        rounds = f"medians of {document['rounds']} rounds, the peers interleaved in each"
    taken = f"Taken {document['when']} on {document['machine']}"
    return f"{taken}; {rounds}, {document['workers']} worker each. {versions}."


def targets(figures):
    lines = ["| figure | target | measured | theirs | ratio | |", "|---|---|---|---|---|---|"]
    lines += filter(None, [against(figures, *ratio) for ratio in RATIOS])
    lines += filter(None, [bounded(figures, *bound) for bound in BOUNDS])
    return "\n".join(lines) if len(lines) > 2 else ""


def everything(figures, peers):
    lines = ["| test | unit | " + " | ".join(peers) + " |", "|---" * (len(peers) + 2) + "|"]
    for test, key, unit in FIGURES:
        cells = [figures.cell(peer, test, key) for peer in peers]
        if any(cell != "-" for cell in cells):
            lines.append(f"| {test} | {unit} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def against(figures, title, whose, test, key, peers, most):
    ours = figures.of(whose, test, key)
    theirs = {peer: value for peer in peers if (value := figures.of(peer, test, key)) is not None}
    if ours is None or not theirs:
        return None
    best = min(theirs, key=theirs.get)
    ratio = ours / theirs[best]
    asked = f"<= {most:.2f} x {'the best peer' if len(peers) > 1 else best}"
    measured = f"{figures.cell(whose, test, key)} | {figures.cell(best, test, key)} ({best})"
    return f"| {title} | {asked} | {measured} | {ratio:.2f} | {verdict(ratio <= most)} |"


def bounded(figures, title, whose, test, key, most):
    ours = figures.of(whose, test, key)
    if ours is None:
        return None
    return f"| {title} | <= {most} | {figures.cell(whose, test, key)} | | | {verdict(ours <= most)} |"


def verdict(kept):
    return "kept" if kept else "missed"


def write(path: pathlib.Path, text):
    """Puts the tables between the markers of a file, which has to have them."""
    old = path.read_text()
    between = f"(?<={re.escape(BEGIN)}\n).*?(?={re.escape(END)})"
    new, found = re.subn(between, lambda _: f"\n{text}\n\n", old, flags=re.S)
    if found != 1:
        raise SystemExit(f"{path} has no place for the tables: {BEGIN} ... {END}")
    path.write_text(new)
