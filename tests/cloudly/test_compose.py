"""A compose file says all that a Supervisor can do, and is refused with line, place and reason for all else."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from cloudly.balena.compose.fields import LEFT_OUT, REFUSED
from cloudly.balena.compose.notes import BadCompose
from cloudly.balena.compose.read import commit_of, read_compose
from tests.cloudly.compose_files import (
    composed,
    file_of,
    image,
    main_of,
    problems_of,
    the_problem,
)

MOUNT = {"type": "volume", "source": "data", "target": "/d"}
JOINED = {"aliases": ["a"], "ipv4_address": "10.9.0.2"}
VOLUMES: dict[str, Any] = {"volumes": {"data": None}}
TWO = f"""\
services:
  web:
    image: {image("web", "1")}
    network_mode: service:db
  db:
    image: {image("db", "2")}
"""


def test_every_problem_is_told_with_its_line_and_its_place() -> None:
    document = """\
version: "3.8"
services:
  web:
    build: .
    image: registry.example/web:latest
    restart: sometimes
  db:
    image: registry.example/db
    volumes:
      - /etc:/host
      - data:/data
secrets: {}
"""

    told = [(one.line, one.where) for one in problems_of(document)]

    assert told == [
        (1, "version"),
        (4, "services.web.build"),
        (5, "services.web.image"),
        (6, "services.web.restart"),
        (8, "services.db.image"),
        (10, "services.db.volumes[0]"),
        (11, "services.db.volumes[1]"),
        (12, "secrets"),
    ]


# -- the YAML


@pytest.mark.parametrize(
    ("document", "line", "says"),
    [
        ("", 1, "mapping"),
        ("- a", 1, "mapping"),
        ("services: [\n", 2, "not YAML"),
        ("a: 1\nb: 2\na: 3\n", 3, 'the key "a" stands here twice, first in line 1'),
        ("a: 1\n---\nb: 2\n", 2, "second document"),
        ("services:\n  a: !reset {}\n", 2, "tag"),
        ("services:\n  a: *b\n", 2, "nothing is called &b"),
        ("a: &a {b: *a}", 1, "alias of itself"),
        ("a: &a {<<: *a}", 1, "alias of itself"),
        ("<<: 1\n", 1, "merges a mapping"),
        ("? [a]\n: b\n", 1, "key must be text"),
        ("a: " + "[" * 30, 1, "nested deeper"),
        ("services: {}\n", 1, "at least one service"),
        ("x-a: b\n", 1, "at least one service"),
        ("services: 1\n", 1, "is a whole number"),
        ("other: 1\nservices: {a: {}}\n", 1, "no section"),
        ('services: {a: {image: "\\ud800"}}\n', 1, "cannot be kept"),
        ("a: \x07\n", 1, "may not stand in YAML"),
    ],
)
def test_a_file_that_is_no_compose_file_is_refused_where_it_is_not(
    document: str, line: int, says: str
) -> None:
    found = problems_of(document)

    assert [one.line for one in found if says in one.reason] == [line]


def test_aliases_that_grow_are_refused_before_they_are_written_out() -> None:
    bomb = "a0: &a0 [x]\n" + "".join(
        f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 30)
    )
    merged = "a0: &a0 {x: y}\n" + "".join(
        f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}\n" for n in range(1, 30)
    )

    for document in (bomb, merged):
        assert "more than 20000 nodes" in problems_of(document)[-1].reason


def test_a_file_that_is_too_large_or_no_text_is_refused() -> None:
    assert "larger than 256 KiB" in problems_of(b"#" * (256 * 1024 + 1))[0].reason
    assert problems_of(b"a: 1\nb: \xff")[0].line == 2


def test_anchors_and_merges_are_written_out_and_what_stands_beside_wins() -> None:
    document = f"""\
x-common: &common
  restart: unless-stopped
  environment: {{A: common}}
services:
  main:
    <<: *common
    image: {image()}
    environment: {{B: own}}
"""

    (main,) = read_compose(document.encode()).services

    assert main.composition == {"restart": "unless-stopped"}
    assert main.environment == {"B": "own"}


@pytest.mark.parametrize("version", ["2", "2.4", 2.1, 2])
def test_version_two_is_read_and_the_name_does_not_matter(version: object) -> None:
    with_both = composed({}, version=version, name="shop")

    assert with_both.services == composed({}).services


def test_no_value_of_the_environment_is_ever_told() -> None:
    canary = "hunter2-in-the-file"
    document = file_of({"environment": {"A": [canary], "B": f"${{{canary}}}", "C-": canary}})
    listed = file_of({"environment": [f"A={canary}", f"A={canary}$", canary + "=" * 0]})

    for bad in (document, listed):
        with pytest.raises(BadCompose) as refused:
            read_compose(bad)
        assert canary not in str(refused.value)
        assert len(refused.value.problems) >= 2


def test_what_is_told_is_printable_and_survives_a_process_border() -> None:
    with pytest.raises(BadCompose) as refused:
        read_compose(file_of({"evil\x1b[31m": 1, "image": "\x1b[31m" + "x" * 500}))

    told = str(refused.value)

    assert "\x1b" not in told
    assert max(map(len, told.splitlines())) < 400
    assert pickle.loads(pickle.dumps(refused.value)).problems == refused.value.problems  # noqa: S301 - our own


# -- images


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (image(), image()),
        (f"localhost:5000/app:1.2@sha256:{'a' * 64}", f"localhost:5000/app@sha256:{'a' * 64}"),
        (f"app@sha256:{'a' * 64}", f"app@sha256:{'a' * 64}"),
    ],
)
def test_an_image_is_kept_by_digest_as_the_supervisor_keeps_it(given: str, kept: str) -> None:
    assert main_of({"image": given}).image == kept


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("registry.example/app", "by digest"),
        ("registry.example/app:1.2", "a tag may change"),
        (f"app@sha256:{'a' * 63}", "by digest"),
        (f"app@sha512:{'a' * 64}", "by digest"),
        (f"UPPER@sha256:{'a' * 64}", "no name"),
        (f"r.example/{'a' * 250}@sha256:{'a' * 64}", "at most 255"),
        (None, "must be text"),
        (["a"], "must be text"),
    ],
)
def test_an_image_that_is_not_by_digest_is_refused(given: object, says: str) -> None:
    assert says in the_problem({"image": given}).reason


def test_two_services_with_different_digests_in_one_repository_are_refused() -> None:
    both = {
        "services": {
            "a": {"image": f"app:1@sha256:{'1' * 64}"},
            "b": {"image": f"docker.io/library/app@sha256:{'2' * 64}"},
        }
    }

    (problem,) = problems_of(str(both))

    assert problem.where == "services.b.image"
    assert "never pull the second one" in problem.reason
    assert problems_of(str(both).replace("2" * 64, "1" * 64)) == ()


# -- environment and labels


def test_values_become_text_and_numbers_keep_their_characters() -> None:
    document = f"""\
services:
  main:
    image: {image()}
    environment:
      NUMBER: 1.10
      OCTAL: 0755
      HEX: 0x1F
      TRUE: True
      WORD: yes
      TIME: 12:30:45
      DATE: 2024-01-02
      EMPTY: ""
      DOLLAR: 5$$
      QUOTED: "true"
    labels:
      - a.b=c=d
      - flag=1
"""

    (main,) = read_compose(document.encode()).services

    assert main.environment == {
        "NUMBER": "1.10", "OCTAL": "0755", "HEX": "0x1F", "TRUE": "true", "WORD": "yes",
        "TIME": "12:30:45", "DATE": "2024-01-02", "EMPTY": "", "DOLLAR": "5$", "QUOTED": "true",
    }  # fmt: skip
    assert main.labels == {"a.b": "c=d", "flag": "1"}


@pytest.mark.parametrize(
    ("service", "says"),
    [
        ({"environment": {"A": None}}, "has no value"),
        ({"environment": ["A"]}, "no ="),
        ({"environment": ["=b"]}, "no name"),
        ({"environment": ["A=1", "A=2"]}, "twice"),
        ({"environment": [["A=1"]]}, "no ="),
        ({"environment": {"A": {"b": "c"}}}, "a mapping"),
        ({"environment": {"A-B": "1"}}, "alphanumeric"),
        ({"environment": {"A" * 256: "1"}}, "more than 255"),
        ({"environment": {"A": "${B}"}}, "no variables"),
        ({"environment": {"A": "$$$B"}}, "no variables"),
        ({"environment": {"A": "a\0b"}}, "cannot be kept"),
        ({"environment": "A=b"}, "mapping or a list"),
        ({"environment": {"BALENA_DEVICE_NAME_AT_INIT": "x"}}, "sets this one itself"),
        ({"labels": {"a b": "1"}}, "printable ASCII"),
        ({"labels": {"io.balena.app-id": "1"}}, "sets this label itself"),
        ({"labels": {"io.balena.features.dbus": "yes"}}, "for off"),
        ({"labels": {"io.balena.update.strategy": "fast"}}, "hand-over"),
        (
            {
                "labels": {"io.balena.features.supervisor-api": 1},
                "environment": {"BALENA_SUPERVISOR_API_KEY": "x"},
            },
            "because of the label",
        ),
    ],
)
def test_a_variable_or_a_label_that_would_not_arrive_is_refused(
    service: dict[str, Any], says: str
) -> None:
    assert says in the_problem(service).reason


def test_what_may_be_a_mistake_is_a_warning() -> None:
    found = composed(
        {
            "environment": {"BASEOS_JOIN_TOKEN": "bjt_secret"},
            "labels": {"io.balena.features.teleport": "1"},
            "ports": ["80"],
        }
    )

    assert [one.where.rpartition("main.")[2] for one in found.warnings] == [
        "environment.BASEOS_JOIN_TOKEN", "labels.io.balena.features.teleport", "ports[0]",
    ]  # fmt: skip
    assert "bjt_secret" not in str(found.warnings)


# -- fields


@pytest.mark.parametrize(
    ("field", "given", "passed"),
    [
        ("command", "sh -c 'echo $$HOME && x'", ["sh", "-c", "echo $HOME && x"]),
        ("command", ["sleep", 5, True], ["sleep", "5", "true"]),
        ("command", [], []),
        ("entrypoint", '/bin/app --a="b c"', ["/bin/app", "--a=b c"]),
        ("restart", "on-failure", "on-failure"),
        ("depends_on", ["main2"], ["main2"]),
        ("depends_on", {"main2": {"condition": "service_started"}}, ["main2"]),
        ("user", 1001, "1001"),
        ("group_add", [29, "video"], ["29", "video"]),
        ("dns", "1.1.1.1", ["1.1.1.1"]),
        ("dns_search", ["a.example"], ["a.example"]),
        ("extra_hosts", {"a": "10.0.0.1"}, ["a:10.0.0.1"]),
        ("extra_hosts", ["a=10.0.0.1", "b:::1"], ["a:10.0.0.1", "b:::1"]),
        ("sysctls", ["net.a=1"], {"net.a": "1"}),
        ("sysctls", {"net.a": 1}, {"net.a": "1"}),
        ("ulimits", {"core": 0, "nofile": {"soft": 1, "hard": 2}}, {"core": 0, "nofile": {"soft": 1, "hard": 2}}),
        ("mem_limit", "96m", "96m"),
        ("shm_size", 1048576, "1048576"),
        ("cpus", 0.5, 0.5),
        ("cpus", "2", 2),
        ("cpuset", 0, "0"),
        ("pids_limit", "64", 64),
        ("oom_score_adj", -500, -500),
        ("privileged", True, True),
        ("tty", False, False),
        ("stop_grace_period", "1m30s", "1m30s"),
        ("ports", [80, "127.0.0.1:81:81/udp"], ["80", "127.0.0.1:81:81/udp"]),
        ("ports", ["8000-8002:9000-9002"], ["8000-8002:9000-9002"]),
        ("ports", [{"target": 80, "published": 8080, "protocol": "udp", "host_ip": "::1"}], ["::1:8080:80/udp"]),
        ("ports", [{"target": 80}], ["80/tcp"]),
        ("volumes", ["data:/data:ro"], ["data:/data:ro"]),
        ("volumes", [MOUNT | {"read_only": True}], [MOUNT | {"readOnly": True}]),
        ("volumes", [MOUNT | {"volume": {"nocopy": True}}], [MOUNT | {"volume": {"nocopy": True}}]),
        ("volumes", [MOUNT | {"read_only": False, "volume": {"nocopy": False}}], [MOUNT]),
        ("volumes", [{"type": "tmpfs", "target": "/t", "tmpfs": {"size": "8m"}}],
         [{"type": "tmpfs", "target": "/t", "tmpfs": {"size": 8388608}}]),
        ("network_mode", "host", "host"),
        ("network_mode", "service:main2", "service:main2"),
        ("networks", ["net", "default"], ["net", "default"]),
        ("networks", {"net": None}, {"net": {}}),
        ("networks", {"sub": JOINED}, {"sub": JOINED}),
        ("healthcheck", {"test": "x", "start_period": "10s"}, {"test": "x", "startPeriod": "10s"}),
        ("healthcheck", {"test": ["CMD", "x"], "retries": 3}, {"test": ["CMD", "x"], "retries": 3}),
        ("healthcheck", {"disable": True}, {"disable": True}),
        ("devices", ["/dev/a", "/dev/a:/dev/b:rw"], ["/dev/a", "/dev/a:/dev/b:rw"]),
        ("security_opt", ["no-new-privileges"], ["no-new-privileges"]),
        ("cap_add", ["NET_ADMIN"], ["NET_ADMIN"]),
        ("init", True, True),
        ("pid", "host", "host"),
        ("ipc", "private", "private"),
    ],
)  # fmt: skip
def test_a_field_is_passed_in_the_form_that_the_supervisor_reads(
    field: str, given: object, passed: object
) -> None:
    found = composed(
        {field: given},
        services={
            "main": {"image": image(), field: given},
            "main2": {"image": image("two", "2")},
        },
        volumes={"data": None},
        networks={
            "net": {},
            "sub": {"ipam": {"config": [{"subnet": "10.9.0.0/24", "gateway": "10.9.0.1"}]}},
        },
    )

    assert found.services[0].composition == {field: passed}


def test_tmpfs_becomes_a_mount_because_only_there_a_size_can_be_said() -> None:
    assert main_of({"tmpfs": ["/a", "/b:size=1m,rw"]}).composition == {
        "volumes": [
            {"type": "tmpfs", "target": "/a"},
            {"type": "tmpfs", "target": "/b", "tmpfs": {"size": 1048576}},
        ]
    }


def test_a_command_that_is_nothing_is_the_one_of_the_image() -> None:
    assert main_of({"command": None, "entrypoint": None}).composition == {}


@pytest.mark.parametrize(
    ("service", "says"),
    [
        ({"restart": "on-failure:3"}, "for always"),
        ({"restart": False}, "put it in quotes"),
        ({"mem_limit": "1.5g"}, "no limit"),
        ({"mem_limit": 0}, "no limit"),
        ({"mem_limit": None}, "no limit"),
        ({"privileged": "false"}, "for true"),
        ({"stop_grace_period": 10}, "units"),
        ({"stop_grace_period": "500ms"}, "for ever"),
        ({"stop_grace_period": "1d"}, "units"),
        ({"pids_limit": -1}, "between 1"),
        ({"pids_limit": 10**30}, "whole number"),
        ({"cpus": 0}, "above 0"),
        ({"cpu_shares": "many"}, "whole number"),
        ({"user": None}, "must be text"),
        ({"user": ""}, "empty"),
        ({"command": "sh 'open"}, "split into words"),
        ({"command": {"a": "b"}}, "text or a list"),
        ({"cap_add": "ALL"}, "must be a list"),
        ({"security_opt": ["label=disable"]}, "SELinux"),
        ({"devices": ["dev/a"]}, "no device"),
        ({"devices": ["/dev/a:/dev/b:x"]}, "r, w, m"),
        ({"extra_hosts": ["a"]}, "host:address"),
        ({"ulimits": {"core": {"soft": 1}}}, "both soft and hard"),
        ({"ulimits": [1]}, "must be a mapping"),
        ({"pid": "service:main"}, "resolves no service"),
        ({"ipc": "container:x"}, "resolves no service"),
        ({"healthcheck": {"interval": "1s"}}, "needs a `test`"),
        ({"healthcheck": {"test": ["curl"]}}, "CMD-SHELL"),
        ({"healthcheck": {"test": "x", "start_interval": "1s"}}, "would drop this"),
        ({"healthcheck": {"test": "x", "interval": 30}}, "units"),
        ({"healthcheck": {"test": "x", "timeout": "1us"}}, "at least 1 ms"),
        ({"depends_on": ["nobody"]}, 'no service "nobody"'),
        ({"depends_on": ["main"]}, "waits for itself"),
        ({"network_mode": "container:x"}, "bridge, host, none"),
        ({"network_mode": "service:x"}, "no service"),
        ({"network_mode": "host", "networks": ["default"]}, "does not go with"),
        ({"network_mode": "none", "labels": {"io.balena.features.supervisor-api": "1"}}, "joins another network"),
        ({"networks": ["net"]}, "not declared"),
        ({"networks": ["supervisor0"]}, "Supervisor's"),
        ({"networks": {"default": {"link_local_ips": ["169.254.1.1"]}}}, "for ever"),
        ({"networks": {"default": {"ipv4_address": "10.0.0.2"}}}, "needs a subnet"),
        ({"networks": {"default": {"priority": 1}}}, "would drop this"),
        ({"ports": ["80:90:100"]}, "no address of the host"),
        ({"ports": ["[::1]:80:80"]}, "can parse"),
        ({"ports": ["127.0.0.1::80"]}, "can parse"),
        ({"ports": ["8000-8002:80"]}, "equally long"),
        ({"ports": ["8000:80-82"]}, "range of host ports"),
        ({"ports": ["90-80"]}, "grow"),
        ({"ports": ["0:80"]}, "between 1 and 65535"),
        ({"ports": ["80:80", "0.0.0.0:79-81:1-3"]}, "same host port"),
        ({"ports": [{"published": 80}]}, "its `target`"),
        ({"ports": [{"target": 80, "mode": "ingress"}]}, "would drop this"),
        ({"ports": "80"}, "must be a list"),
        ({"volumes": ["/etc:/etc"]}, "host paths"),
        ({"volumes": ["./a:/a"]}, "host paths"),
        ({"volumes": ["~/a:/a"]}, "host paths"),
        ({"volumes": ["/data"]}, "loses what it holds"),
        ({"volumes": ["other:/data"]}, "not declared"),
        ({"volumes": ["data:data"]}, "no absolute path"),
        ({"volumes": ["data:/"]}, "all of it"),
        ({"volumes": ["data:/d:rx"]}, "mode"),
        ({"volumes": ["data:/d:"]}, "last colon"),
        ({"volumes": ["data:/tmp/balena/"]}, "update locks"),
        ({"volumes": ["data:/d"], "tmpfs": "/d"}, "two mounts"),
        ({"volumes": [{"type": "bind", "source": "/a", "target": "/a"}]}, "host paths"),
        ({"volumes": [{"type": "npipe", "target": "/a"}]}, "volume or tmpfs"),
        ({"volumes": [{"type": "volume", "target": "/a"}]}, "loses what it holds"),
        ({"volumes": [{"type": "volume", "source": "data", "target": "/a", "consistency": "x"}]}, "would drop this"),
        ({"volumes": [{"type": "tmpfs", "target": "/a", "tmpfs": {"mode": 511}}]}, "would drop this"),
        ({"tmpfs": "/run:mode=1777"}, "only its size"),
        ({"tmpfs": "/run:size=50%"}, "only its size"),
        ({"tmpfs": "tmp"}, "no absolute path"),
        ({"restrat": "always"}, "did you mean restart"),
        ({"frobnicate": "always"}, "no field"),
    ],
)  # fmt: skip
def test_a_field_that_would_be_dropped_or_misread_is_refused(
    service: dict[str, Any], says: str
) -> None:
    problem = the_problem(service, **VOLUMES)

    assert says in problem.reason
    assert problem.where.startswith("services.main")


@pytest.mark.parametrize("field", sorted(REFUSED))
def test_a_field_that_the_supervisor_does_not_know_is_refused_with_its_reason(field: str) -> None:
    assert the_problem({field: {"any": "thing"}}).reason == REFUSED[field]


@pytest.mark.parametrize("field", sorted(LEFT_OUT))
def test_a_field_that_nothing_is_lost_without_is_left_out_with_a_warning(field: str) -> None:
    found = composed({field: "x", "x-note": "mine"})

    assert [one.where for one in found.warnings] == [f"services.main.{field}"]
    assert found.services[0].composition == {}


def test_a_dependency_is_a_start_and_nothing_more() -> None:
    healthy = TWO + "    depends_on: {}\n  third:\n    image: " + image("third", "3")
    healthy += "\n    depends_on: {db: {condition: service_healthy, restart: true}}\n"

    told = [(one.where, one.reason) for one in problems_of(healthy)]

    assert [where for where, _ in told] == [
        "services.third.depends_on.db.condition", "services.third.depends_on.db.restart",
    ]  # fmt: skip
    assert "nothing more" in told[0][1]


def test_services_that_wait_for_each_other_are_refused() -> None:
    assert problems_of(TWO) == ()

    told = problems_of(TWO + "    depends_on: [web]\n")

    assert [(one.line, one.where) for one in told] == [(2, "services.web"), (5, "services.db")]


def test_two_services_on_one_host_port_are_refused() -> None:
    web = f"  web: {{image: '{image('web', '1')}', ports: ['8080:80']}}\n"
    other = f"  other: {{image: '{image('other', '2')}', ports: ['127.0.0.1:8080:81']}}\n"

    (problem,) = problems_of("services:\n" + web + other)

    assert problem.where == "services.web.ports[0]"
    assert "services.other.ports[0] publishes the same" in problem.reason
    assert problems_of("services:\n" + web + other.replace("81'", "81/udp'")) == ()


# -- volumes and networks


def test_volumes_and_networks_are_objects_never_null() -> None:
    found = composed(
        volumes={
            "a": None,
            "b": {"driver": "local", "driver_opts": {"size": 1}, "labels": ["x=y"]},
        },
        networks={"n": None, "m": {"internal": True, "x-note": "mine", "enable_ipv6": False}},
    )

    assert found.volumes == {
        "a": {},
        "b": {"driver": "local", "driver_opts": {"size": "1"}, "labels": {"x": "y"}},
    }
    assert found.networks == {"n": {}, "m": {"internal": True, "enable_ipv6": False}}


@pytest.mark.parametrize(
    ("sections", "says"),
    [
        ({"volumes": {"a": {"external": True}}}, "`external`"),
        ({"volumes": {"a": {"name": "x"}}}, "`name`"),
        ({"volumes": {"a": {"driver": "nfs"}}}, "no volume plugins"),
        ({"volumes": {"a b": {}}}, "no name"),
        ({"volumes": {"a": {"labels": {"b c": "d"}}}}, "no name of a label"),
        ({"volumes": ["a"]}, "mapping of names"),
        ({"volumes": {"a": 1}}, "must be a mapping"),
        ({"networks": {"a": {"external": True}}}, "`external`"),
        ({"networks": {"a": {"driver": "overlay"}}}, "no other"),
        ({"networks": {"a": {"attachable": True}}}, "would drop this"),
        ({"networks": {"a": {"internal": "yes"}}}, "true or false"),
        ({"networks": {"a": {"ipam": {"config": [{"subnet": "10.9.0.0/24"}]}}}}, "both subnet and gateway"),
        ({"networks": {"a": {"ipam": {"config": [{"subnet": "x", "gateway": "10.9.0.1"}]}}}}, "no network address"),
        ({"networks": {"a": {"ipam": {"config": {}}}}}, "must be a list"),
        (
            {"networks": {"a": {"ipam": {"config": [
                {"subnet": "10.9.0.0/24", "gateway": "10.9.0.1", "aux_addresses": {"x": "10.9.0.9"}}]}}}},
            "for ever",
        ),
    ],
)  # fmt: skip
def test_a_volume_or_network_that_would_be_another_one_is_refused(
    sections: dict[str, Any], says: str
) -> None:
    assert says in the_problem({}, **sections).reason


# -- the commit


def test_the_commit_is_made_of_what_the_file_says_and_not_of_how() -> None:
    commit = commit_of(composed({"restart": "always"}), "1.0.0")
    commented = b"# a comment\n" + file_of({"restart": "always"})

    assert commit == commit_of(read_compose(commented), "1.0.0")
    assert commit not in {
        commit_of(composed({"restart": "no"}), "1.0.0"),
        commit_of(composed({"restart": "always"}), "1.0.1"),
        commit_of(composed({"restart": "always"}, **VOLUMES), "1.0.0"),
    }
    assert len(commit) == 32
    assert not commit.isdigit()


def test_a_commit_is_never_digits_only(monkeypatch: pytest.MonkeyPatch) -> None:
    class Digits:
        def hexdigest(self) -> str:
            return "1" * 64

    monkeypatch.setattr("cloudly.balena.compose.read.hashlib.sha256", lambda _: Digits())

    assert commit_of(composed({}), "1.0.0") == "c" + "1" * 31
