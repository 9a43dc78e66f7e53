"""Random kills while stacks start, sleep, wake and go: what is left over, what is there twice, what is lost.

python3 -m benchmarks.chaos                       200 kills, in the demo's installation (namespace cytomine)
python3 -m benchmarks.chaos --namespace NAME      another installation of the chart
python3 -m benchmarks.chaos --dry --kills 50      an API server with nodes that run nothing, a service of its own

Killed are the hub, the stack service, pods of the stacks and, in the dry run, all connections to the API server. Each
stack's owner meanwhile writes rows into its database and reads them back after each sleep and each new start; in the
dry run, where no database runs, the volumes' identities stand for the rows. Only stacks of owners chaos-N are touched.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.chaos_places import LABEL, Place, dry, owner_of, real
from benchmarks.common import in_test_environment, keep, table

READY_SECONDS = 300
GONE_SECONDS = 180


class Life:
    """One stack's owner, who does one thing after the other and looks whether all is there.

    Args:
        place: where.
        number: of the owner.
        done: counts what was done, for all owners.
    """

    def __init__(self, place: Place, number: int, done: Counter[str]) -> None:
        from cytomine_spawner.stack import model

        self.place, self.objects, self.owner, self.done = place, place.objects, f"chaos-{number}", done
        self.name = model.stack_name(self.owner, "")
        self.written: set[int] = set()
        self.perhaps: set[int] = set()
        self.lost: list[str] = []
        self.stuck: list[str] = []
        self._next = 0

    def run(self, stop: threading.Event) -> None:
        """Go on until told to stop; then the stack is Ready."""
        steps = [self.sleep, self.sleep_and_wake_at_once, self.renew, self.anew, self.leave_midway]
        while not stop.is_set():
            if self.ready():
                self.write()
                self.check()
            steps[random.randrange(len(steps))]()
        if self.ready():
            self.check()

    def ready(self) -> bool:
        """See to it that the stack is there and Ready."""
        from cytomine_spawner.stack import model

        def step() -> bool:
            found = self.objects.get(model.KIND, self.name)
            if found is None:
                self.objects.new_stack(self.owner, idle_timeout=0)
                return False
            if found["metadata"].get("deletionTimestamp"):
                return False
            if found["spec"].get("desiredState") == "Hibernated":
                self.objects.change(self.name, desiredState="Running")
                return False
            stack = model.Stack.from_object(found)
            return (
                stack.status.phase is model.Phase.READY
                and stack.status.observed_generation == stack.generation
            )

        return self._until(step, READY_SECONDS, "Ready")

    def write(self) -> None:
        """Write rows."""
        for _ in range(3):
            self._next += 1
            try:
                self.place.write(self.name, self._next)
                self.written.add(self._next)
                self.done["row written"] += 1
            except Exception:  # its pod is killed just now: written or not, nobody knows
                self.perhaps.add(self._next)

    def check(self) -> None:
        """Compare the rows with what was written."""
        end = time.monotonic() + 120
        while True:
            try:
                rows = self.place.read(self.name)
                break
            except Exception as error:
                if time.monotonic() > end:
                    self.stuck.append(f"{self.name}: the database does not answer: {error}")
                    return
                time.sleep(1)
        self.done["rows compared"] += 1
        missing = self.written - set(rows)
        if missing:
            self.lost.append(f"{self.name}: rows {sorted(missing)}")
            self.written -= missing
        if len(rows) != len(set(rows)) or set(rows) - self.written - self.perhaps:
            self.lost.append(f"{self.name}: rows that nobody wrote: {sorted(rows)}")

    def sleep(self) -> None:
        """Hibernate."""
        from cytomine_spawner.stack import model

        def asleep() -> bool:
            self.objects.change(self.name, desiredState="Hibernated")
            return self.objects.stack(self.name).status.phase is model.Phase.HIBERNATED

        self._until(asleep, GONE_SECONDS, "asleep")
        self.done["hibernated"] += 1

    def sleep_and_wake_at_once(self) -> None:
        """Change one's mind in the middle."""
        for state in ("Hibernated", "Running"):
            self._try(lambda state=state: self.objects.change(self.name, desiredState=state))
            time.sleep(random.uniform(0, 2))
        self.done["hibernated and resumed at once"] += 1

    def renew(self) -> None:
        """Delete and keep the data."""
        self._try(lambda: self.objects.change(self.name, keepData=True))
        self._go()
        self.done["deleted, data kept"] += 1

    def anew(self) -> None:
        """Delete with the data."""
        kept = self._try(lambda: self.objects.change(self.name, keepData=False))
        if kept:
            self._go()
            self.written.clear()
            self.perhaps.clear()
            self.done["deleted with data"] += 1

    def leave_midway(self) -> None:
        """Begin a start and delete in the middle of it, with the data."""
        self.anew()
        if self._try(lambda: self.objects.new_stack(self.owner, idle_timeout=0)):
            time.sleep(random.uniform(0, 4))
            self._go()
            self.done["deleted in the middle of a start"] += 1

    def _go(self) -> None:
        from cytomine_spawner.stack import model

        def gone() -> bool:
            found = self.objects.get(model.KIND, self.name)
            if found and not found["metadata"].get("deletionTimestamp"):
                self.objects.delete(model.KIND, self.name)
            return found is None

        self._until(gone, GONE_SECONDS, "gone")

    def _try(self, do: Callable[[], Any]) -> bool:
        return self._until(lambda: (do(), True)[1], 60, "changed")

    def _until(self, step: Callable[[], bool], seconds: float, what: str) -> bool:
        import httpx

        end = time.monotonic() + seconds
        while time.monotonic() < end:
            with contextlib.suppress(httpx.HTTPError, AssertionError):
                if step():
                    return True
            time.sleep(0.3)
        self.stuck.append(f"{self.name} is not {what} after {seconds:.0f} s")
        return False


def orphans(objects: Any) -> list[str]:
    """What has our label, or a chaos stack's, and no stack; volumes that were kept on purpose are none."""
    from cytomine_spawner.stack import model

    there = {item["metadata"]["name"] for item in objects.list(model.KIND)}
    return [
        f"{item['kind']} {item['metadata']['name']}"
        for item in objects.everything(LABEL)
        if (item["metadata"].get("labels") or {}).get("app.kubernetes.io/instance") not in there
        and model.ANNOTATION_KEPT not in (item["metadata"].get("annotations") or {})
    ]


def duplicates(objects: Any, name: str) -> list[str]:
    """Components of a Ready stack that have more than one workload or pod, or none."""
    found = []
    for component in objects.stack(name).status.components:
        labels = f"{LABEL},app.kubernetes.io/instance={name},app.kubernetes.io/component={component.name}"
        pods = [p for p in objects.list("Pod", labels) if not p["metadata"].get("deletionTimestamp")]
        pods = [p for p in pods if (p.get("status") or {}).get("phase") not in ("Failed", "Succeeded")]
        workloads = [*objects.list("Deployment", labels), *objects.list("StatefulSet", labels)]
        if len(pods) != 1 or len(workloads) != 1:
            found.append(f"{name} {component.name}: {len(pods)} pods, {len(workloads)} workloads")
    return found


def run(place: Place, kills: int, stacks: int, minutes: float, pause: float) -> dict[str, Any]:
    """Kill, then look; the numbers."""
    done: Counter[str] = Counter()
    killed: Counter[str] = Counter()
    lives = [Life(place, number, done) for number in range(stacks)]
    stop = threading.Event()
    threads = [threading.Thread(target=life.run, args=(stop,), daemon=True) for life in lives]
    for thread in threads:
        thread.start()
    end = time.monotonic() + minutes * 60
    ways = place.kills()
    import httpx

    while sum(killed.values()) < kills and time.monotonic() < end:
        time.sleep(random.uniform(0.3, pause))
        name = random.choice(list(ways))
        with contextlib.suppress(httpx.HTTPError, AssertionError):
            if ways[name]():
                killed[name] += 1
                say(f"{sum(killed.values())} of {kills} kills, {sum(done.values())} things done")
    say("The stacks come to rest")
    stop.set()
    rested = time.monotonic()
    for thread in threads:
        thread.join(2 * READY_SECONDS + GONE_SECONDS)
    rest = time.monotonic() - rested
    objects = place.objects
    twice = settle(lambda: [d for life in lives for d in duplicates(objects, life.name)])
    for number, life in enumerate(lives):
        # half of them leave their volumes behind: those are no orphans
        (life.renew if number % 2 else life.anew)()
    left = settle(lambda: orphans(objects))
    for item in objects.list("PersistentVolumeClaim", LABEL):
        if owner_of(item).startswith("chaos-"):
            objects.delete("PersistentVolumeClaim", item["metadata"]["name"])
    return {
        "kills": dict(killed),
        "done": dict(done),
        "orphans": left,
        "duplicates": twice,
        "lost": [text for life in lives for text in life.lost],
        "stuck": [text for life in lives for text in life.stuck],
        "rest_seconds": rest,
    }


def settle(look: Callable[[], list[str]], seconds: float = 120) -> list[str]:
    """What a look still finds after Kubernetes had its time to clear up."""
    import httpx

    end = time.monotonic() + seconds
    found = ["nobody could look"]
    while time.monotonic() < end:
        with contextlib.suppress(httpx.HTTPError, AssertionError):
            found = look()
            if not found:
                return found
        time.sleep(1)
    return found


def say(text: str) -> None:
    """Progress, in place on a terminal."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)
    elif text and ("0 of" in text or not text[0].isdigit()):
        print(text, file=sys.stderr, flush=True)


def main() -> int:
    """Run and print; 1 if something was left over, twice there, lost or stuck."""
    in_test_environment([str(Path(__file__).resolve()), *sys.argv[1:]])
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--stacks", type=int, default=3, help="how many stacks live meanwhile (default 3)")
    parser.add_argument(
        "--minutes", type=float, default=60, help="end the kills after this time (default 60)"
    )
    parser.add_argument(
        "--pause",
        type=float,
        default=6,
        help="most seconds between two kills (default 6): with less than the service takes to start nothing gets done",
    )
    parser.add_argument("--namespace", default="cytomine", help="where the chart is installed")
    parser.add_argument(
        "--users", default="", help="its users.namespace (default: that with -users behind it)"
    )
    parser.add_argument("--seed", type=int, default=None, help="of the chance")
    parser.add_argument("--dry", action="store_true", help="without containers, on an API server of its own")
    args = parser.parse_args()
    seed = args.seed if args.seed is not None else random.randrange(10**6)
    random.seed(seed)
    users = args.users or f"{args.namespace}-users"
    from dev.console import Problem

    try:
        with dry() if args.dry else contextlib.nullcontext(real(args.namespace, users)) as place:
            found = run(place, args.kills, args.stacks, args.minutes, args.pause)
    except Problem as problem:
        print(problem)
        return 1
    say("")
    rows = [[f"killed: {name}", str(count)] for name, count in found["kills"].items()]
    rows += [[name, str(count)] for name, count in found["done"].items()]
    rows.append(["until all stacks were ready again", f"{found['rest_seconds']:.0f} s"])
    bad = ("orphans", "duplicates", "lost", "stuck")
    rows += [[name, str(len(found[name]))] for name in bad]
    title = "a dry run" if args.dry else f"namespace {args.namespace}"
    table(f"Chaos: {title}, {args.stacks} stacks, seed {seed}", ["what", "count"], rows)
    for name in bad:
        for text in found[name]:
            print(f"{name}: {text}")
    print(f"\nRaw numbers: {keep('chaos', {**found, 'seed': seed})}")
    return 1 if any(found[name] for name in bad) or sum(found["kills"].values()) < args.kills else 0


if __name__ == "__main__":
    sys.exit(main())
