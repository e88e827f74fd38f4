"""What a W&B server keeps and answers: projects, runs, files, artifacts and saved views.

The classes are types of W&B's GraphQL schema: their camel-case attributes and methods are its fields, as W&B's client
asks for them, and `wandb_graphql` reads them. Everything in snake case or in one plain word beside that is for tests.
`Query` and `Mutation` hold the operations; each says what it is for. Nothing here knows HTTP.
"""

from __future__ import annotations

import base64
import fnmatch
import hashlib
import itertools
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from wandb_filters import matches, ordered

ENTITY = "tester"  # who the API key belongs to, and where runs go that name no entity


class RequestError(ValueError):
    """A request that a W&B server refuses too; the message is told to the client."""


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def identifier(*parts: str) -> str:
    """An opaque id as W&B makes them: the kind and the names, in base64."""
    return base64.b64encode(":".join(parts).encode()).decode()


def loads(text: str) -> Any:
    """JSON of the client, in which a number may be a bare NaN or Infinity: W&B serves these as strings."""
    return json.loads(text, parse_constant=str)


@dataclass(frozen=True)
class PageInfo:
    endCursor: str | None
    hasNextPage: bool


@dataclass(frozen=True)
class Connection:
    """One page of a list."""

    edges: list[dict[str, Any]]
    pageInfo: PageInfo
    totalCount: int


def connection(items: Sequence[Any], first: int | None = None, after: str | None = None, **more: Any) -> Connection:
    """The page of `items` that follows the cursor `after`; `more` is told of each edge by its name."""
    start = int(after) + 1 if after else 0
    stop = len(items) if first is None else start + first
    edges = [
        {"node": item, "cursor": str(start + place), **{name: told(item) for name, told in more.items()}}
        for place, item in enumerate(items[start:stop])
    ]
    return Connection(edges, PageInfo(edges[-1]["cursor"] if edges else None, stop < len(items)), len(items))


class Entity:
    """A user's or a team's name space."""

    organization = None  # this server has no registry, which needs one
    xxhashDigestsEnabled = False

    def __init__(self, name: str) -> None:
        self.id = identifier("Entity", name)
        self.name = name


class User:
    """The one user of this server."""

    id = identifier("User", ENTITY)
    name = username = entity = ENTITY
    email = f"{ENTITY}@example.org"
    admin = False
    flags = "{}"
    deletedAt = None

    @property
    def apiKeys(self) -> Connection:
        return connection([])

    @property
    def teams(self) -> Connection:
        return connection([])


class File:
    """A file of a run or of an artifact."""

    def __init__(self, backend: Backend, name: str, path: str) -> None:
        self.backend, self.path = backend, path
        self.id = identifier("File", path)
        self.name = self.displayName = name
        self.mimetype = "application/octet-stream"
        self.updatedAt = backend.written.get(path)
        self.storagePath = path
        self.uploadHeaders: list[str] = []
        self.uploadMultipartUrls = None  # only files of more than 2 GB are uploaded in parts

    def url(self, upload: bool = False) -> str:
        return self.backend.url(self.path)

    @property
    def directUrl(self) -> str:
        return self.backend.url(self.path)

    uploadUrl = directUrl

    @property
    def content(self) -> bytes:
        return self.backend.storage.get(self.path, b"")

    @property
    def sizeBytes(self) -> int:
        return len(self.content)

    @property
    def md5(self) -> str:
        return base64.b64encode(hashlib.md5(self.content).digest()).decode()

    digest = md5


class Run:
    """A run, as far as the client has told of it."""

    sweepName = None
    readOnly = False
    description = ""
    systemMetrics = "{}"
    user = User()

    def __init__(self, project: Project, name: str) -> None:
        self.project = project
        self.name = self.displayName = name
        self.id = identifier("Run", "v1", name, project.name, project.entityName)
        self.projectId = project.internalId
        self.tags: list[str] = []
        self.group: str | None = None
        self.jobType: str | None = None
        self.commit: str | None = None
        self.notes: str | None = None
        self.host = self.program = self.repo = ""
        self.createdAt = self.heartbeatAt = now()
        self.raw_config: dict[str, Any] = {}  # key -> {"value": ...}
        self.lines: dict[str, dict[int, str]] = {}  # file of the stream -> line number -> line
        self.preempting = False
        self.lost = False  # no heartbeat for so long that a server takes the run for dead
        self.exit_code: int | None = None
        self.used: list[Artifact] = []

    # What tests read.

    def settings(self) -> dict[str, Any]:
        """The configuration that the user gave, without what W&B adds."""
        return {
            key: item["value"] if isinstance(item, dict) and "value" in item else item
            for key, item in self.raw_config.items()
            if key not in ("_wandb", "wandb_version")
        }

    def rows(self, stream: str = "wandb-history.jsonl") -> list[dict[str, Any]]:
        """The history, row by row, as W&B serves it."""
        return [loads(line) for _, line in sorted(self.lines.get(stream, {}).items())]

    def summary(self) -> dict[str, Any]:
        told = self.lines.get("wandb-summary.json", {})
        return loads(told[max(told)]) if told else {}

    def uploads(self) -> dict[str, bytes]:
        """The run's files by name."""
        start = self.prefix
        return {path[len(start) :]: body for path, body in self.backend.storage.items() if path.startswith(start)}

    @property
    def backend(self) -> Backend:
        return self.project.backend

    @property
    def prefix(self) -> str:
        return f"runs/{self.project.entityName}/{self.project.name}/{self.name}/"

    # Fields of the schema.

    @property
    def state(self) -> str:
        """As W&B tells it: a run that announced preemption and did not end well was preempted."""
        if self.exit_code == 0:
            return "finished"
        if self.exit_code is None and not self.lost:
            return "running"
        if self.preempting:
            return "preempted"
        return "failed" if self.exit_code is not None else "crashed"

    @property
    def config(self) -> str:
        return json.dumps(self.raw_config)

    @property
    def summaryMetrics(self) -> str:
        return json.dumps(self.summary())

    def count(self, stream: str) -> int:
        return max(self.lines.get(stream, {}), default=-1) + 1

    @property
    def historyLineCount(self) -> int:
        return self.count("wandb-history.jsonl")

    @property
    def eventsLineCount(self) -> int:
        return self.count("wandb-events.jsonl")

    @property
    def logLineCount(self) -> int:
        return self.count("output.log")

    @property
    def historyTail(self) -> str:
        """The last row, from which a resumed run goes on: JSON of a list of JSON."""
        return json.dumps([json.dumps(row) for row in self.rows()[-1:]])

    @property
    def eventsTail(self) -> str:
        return json.dumps([json.dumps(row) for row in self.rows("wandb-events.jsonl")[-1:]])

    def wandbConfig(self, keys: list[str]) -> str:
        """Parts of what the client tells of itself, under `_wandb` of the configuration."""
        kept = self.raw_config.get("_wandb", {}).get("value", {})
        return json.dumps({key: kept[key] for key in keys if key in kept})

    @property
    def historyKeys(self) -> dict[str, Any] | None:
        """Which metrics there are, of what types, and the last step."""
        counts: dict[str, dict[str, int]] = {}
        rows = self.rows()
        if not rows:
            return None
        for row in rows:
            for key, value in row.items():
                kind = "number" if isinstance(value, int | float) else "map" if isinstance(value, dict) else "string"
                counts.setdefault(key, {}).setdefault(kind, 0)
                counts[key][kind] += 1
        keys = {
            key: {"typeCounts": [{"type": kind, "count": count} for kind, count in kinds.items()]}
            for key, kinds in counts.items()
        }
        return {"keys": keys, "lastStep": max(row["_step"] for row in rows), "sets": []}

    def history(self, samples: int | None = None, minStep: int | None = None, maxStep: int | None = None) -> list[str]:
        """Rows with `minStep <= _step < maxStep`, at most `samples` of them."""
        return [json.dumps(row) for row in sampled(self._between(minStep, maxStep), samples)]

    def events(self, samples: int | None = None) -> list[str]:
        """What W&B measured of the machine."""
        return [json.dumps(row) for row in sampled(self.rows("wandb-events.jsonl"), samples)]

    def sampledHistory(self, specs: list[str]) -> list[list[dict[str, Any]]]:
        """For each spec, the rows that have all its keys, with only these."""
        told = []
        for spec in map(json.loads, specs):
            keys = spec["keys"]
            rows = self._between(spec.get("minStep"), spec.get("maxStep"))
            kept = [{key: row[key] for key in keys} for row in rows if all(key in row for key in keys)]
            told.append(sampled(kept, spec.get("samples")))
        return told

    def parquetHistory(self, liveKeys: list[str]) -> dict[str, Any]:
        """This server exports nothing to parquet: all rows are live."""
        return {"parquetUrls": [], "liveData": [row for row in self.rows() if all(key in row for key in liveKeys)]}

    def _between(self, low: int | None, high: int | None) -> list[dict[str, Any]]:
        return [
            row for row in self.rows() if (low is None or row["_step"] >= low) and (high is None or row["_step"] < high)
        ]

    @property
    def fileCount(self) -> int:
        return len(self.uploads())

    def files(
        self,
        names: list[str] | None = None,
        after: str | None = None,
        first: int | None = None,
        pattern: str | None = None,
    ) -> Connection:
        """The uploaded files; `pattern` is SQL's, with % for anything."""
        glob = pattern.replace("%", "*") if pattern else "*"
        kept = [name for name in sorted(self.uploads()) if (not names or name in names) and fnmatch.fnmatch(name, glob)]
        return connection([self.file(name) for name in kept], first, after)

    def file(self, name: str) -> File:
        return File(self.backend, name, self.prefix + name)

    def outputArtifacts(self, after: str | None = None, first: int | None = None) -> Connection:
        """What the run logged."""
        return connection([item for item in self.project.artifacts() if item.run is self], first, after)

    def inputArtifacts(self, after: str | None = None, first: int | None = None) -> Connection:
        """What the run used."""
        return connection(self.used, first, after)


def sampled(rows: list[Any], samples: int | None) -> list[Any]:
    """At most `samples` of the rows, evenly, the first and the last among them."""
    if samples is None or len(rows) <= samples:
        return rows
    return [rows[round(place * (len(rows) - 1) / max(samples - 1, 1))] for place in range(samples)]


class Project:
    """The runs, artifact collections and views of a project."""

    isBenchmark = False
    readOnly = False
    user = User()
    description = ""
    access = "USER_READ"
    views = "{}"
    sweep = None  # Regraft runs its own sweeps

    def __init__(self, backend: Backend, entity: str, name: str, number: int) -> None:
        self.backend = backend
        self.entity = Entity(entity)
        self.entityName = entity
        self.name = name
        self.id = identifier("Project", "v1", name, entity)
        self.internalId = str(number)
        self.createdAt = now()
        self.members: dict[str, Run] = {}
        self.collections: dict[str, ArtifactSequence] = {}

    def run(self, name: str) -> Run | None:
        return self.members.get(name)

    def bucket(self, name: str, missingOk: bool = False) -> Run | None:
        """The older name of `run`."""
        return self.members.get(name)

    def runs(
        self, filters: str | None = None, after: str | None = None, first: int | None = None, order: str | None = None
    ) -> Connection:
        return connection(ordered(self._matching(filters), order or "+created_at"), first, after)

    def runCount(self, filters: str | None = None) -> int:
        return len(self._matching(filters))

    def _matching(self, filters: str | None) -> list[Run]:
        wanted = json.loads(filters or "{}")
        return [run for run in self.members.values() if matches(run, wanted)]

    def artifacts(self) -> list[Artifact]:
        return [version for collection in self.collections.values() for version in collection.versions]

    def artifactType(self, name: str) -> ArtifactType | None:
        found = ArtifactType(self, name)
        return found if found.members() else None

    def artifactTypes(self, after: str | None = None, first: int | None = None) -> Connection:
        names = sorted({collection.kind for collection in self.collections.values()})
        return connection([ArtifactType(self, name) for name in names], first, after)

    def artifactCollection(self, name: str) -> ArtifactSequence | None:
        return self.collections.get(name)

    def artifactCollectionMembership(self, name: str) -> ArtifactCollectionMembership | None:
        """The version that `collection:alias` names."""
        collection, _, alias = name.partition(":")
        found = self.collections.get(collection)
        return found.artifactMembership(alias or "latest") if found else None

    def artifact(self, name: str) -> Artifact | None:
        membership = self.artifactCollectionMembership(name)
        return membership.artifact if membership else None

    def allViews(
        self, viewType: str | None = None, viewName: str | None = None, userName: str | None = None
    ) -> Connection:
        """Saved workspaces (`project-view`) and reports (`runs`, `runs/draft`)."""
        found = [
            view
            for view in self.backend.views.values()
            if view.project is self and viewType in (None, view.type) and viewName in (None, view.name)
        ]
        return connection(found)


class ArtifactType:
    """The collections of a project that hold one type of artifact."""

    description = None

    def __init__(self, project: Project, name: str) -> None:
        self.project, self.name = project, name
        self.id = identifier("ArtifactType", project.id, name)
        self.createdAt = project.createdAt

    def members(self) -> list[ArtifactSequence]:
        return [collection for collection in self.project.collections.values() if collection.kind == self.name]

    def artifactCollection(self, name: str) -> ArtifactSequence | None:
        return next((collection for collection in self.members() if collection.name == name), None)

    def artifactCollections(
        self, after: str | None = None, first: int | None = None, filters: str | None = None, order: str | None = None
    ) -> Connection:
        return connection(self.members(), first, after)

    def artifact(self, name: str) -> Artifact | None:
        collection, _, alias = name.partition(":")
        found = self.artifactCollection(collection)
        membership = found.artifactMembership(alias or "latest") if found else None
        return membership.artifact if membership else None


class ArtifactSequence:
    """The versions of one artifact; v0 is the first that was committed."""

    description = None
    updatedAt = None
    digestAlgorithm = "MANIFEST_MD5"

    def __init__(self, project: Project, name: str, kind: str) -> None:
        self.project, self.name, self.kind = project, name, kind
        self.id = identifier("ArtifactCollection", project.id, name)
        self.createdAt = now()
        self.versions: list[Artifact] = []
        self.tags = connection([])
        self.aliased: dict[str, Artifact] = {}  # all aliases but v0, v1, ...

    @property
    def defaultArtifactType(self) -> ArtifactType:
        return ArtifactType(self.project, self.kind)

    @property
    def latestArtifact(self) -> Artifact | None:
        return self.aliased.get("latest")

    def artifactMembership(self, aliasName: str) -> ArtifactCollectionMembership | None:
        found = self.aliased.get(aliasName)
        if found is None:
            found = next((item for item in self.versions if f"v{item.versionIndex}" == aliasName), None)
        return ArtifactCollectionMembership(found) if found else None

    def artifacts(
        self, after: str | None = None, first: int | None = None, order: str | None = None, filters: str | None = None
    ) -> Connection:
        """All versions, the newest first."""
        return connection(self.versions[::-1], first, after, version=lambda item: f"v{item.versionIndex}")


class ArtifactCollectionMembership:
    """An artifact as a version of its collection."""

    def __init__(self, artifact: Artifact) -> None:
        self.artifact = artifact
        self.artifactCollection = artifact.artifactSequence
        self.id = identifier("ArtifactCollectionMembership", artifact.id)
        self.versionIndex = artifact.versionIndex
        self.createdAt = artifact.createdAt
        self.aliases = artifact.aliases

    def files(self, names: list[str] | None = None, after: str | None = None, first: int | None = None) -> Connection:
        return self.artifact.files(names, after, first)


class ArtifactAlias:
    def __init__(self, artifact: Artifact, alias: str) -> None:
        self.id = identifier("ArtifactAlias", artifact.id, alias)
        self.alias = alias
        self.artifactCollection = artifact.artifactSequence


class ArtifactManifest:
    """The list of an artifact's files, itself a file."""

    def __init__(self, artifact: Artifact) -> None:
        self.artifact = artifact
        self.id = identifier("ArtifactManifest", artifact.id)

    @property
    def file(self) -> File:
        artifact = self.artifact
        return File(artifact.backend, "wandb_manifest.json", f"manifests/{artifact.number}/wandb_manifest.json")


class Artifact:
    """One version of an artifact; PENDING until its manifest and files have arrived."""

    ttlDurationSeconds = -1  # kept for ever
    ttlIsInherited = True
    tags: list[Any] = []
    digestAlgorithm = "MANIFEST_MD5"
    commitHash = None
    updatedAt = None

    def __init__(self, collection: ArtifactSequence, run: Run | None, number: int, told: Mapping[str, Any]) -> None:
        self.backend = collection.project.backend
        self.artifactSequence = collection
        self.run = run
        self.number = number
        self.id = identifier("Artifact", str(number))
        self.versionIndex: int | None = None
        self.digest = told["digest"]
        self.description = told.get("description")
        self.metadata = told.get("metadata") or "{}"
        self.historyStep = told.get("historyStep")
        self.state = "PENDING"
        self.createdAt = now()
        self.wanted_aliases = [item["alias"] for item in told.get("aliases") or []]
        self.client_id = told.get("clientID")
        self.uploaded: dict[str, str] = {}  # name -> path in the storage

    @property
    def artifactType(self) -> ArtifactType:
        return self.artifactSequence.defaultArtifactType

    @property
    def currentManifest(self) -> ArtifactManifest:
        return ArtifactManifest(self)

    def entries(self) -> dict[str, dict[str, Any]]:
        """The manifest's entries by file name."""
        content = self.currentManifest.file.content
        return json.loads(content)["contents"] if content else {}

    def read(self, name: str) -> bytes:
        """The content of one file, for tests."""
        return self.backend.storage[f"objects/{self.entries()[name]['digest']}"]

    @property
    def size(self) -> int:
        return sum(entry.get("size", 0) for entry in self.entries().values())

    @property
    def fileCount(self) -> int:
        return len(self.entries())

    @property
    def aliases(self) -> list[ArtifactAlias]:
        mine = [alias for alias, item in self.artifactSequence.aliased.items() if item is self]
        return [ArtifactAlias(self, alias) for alias in (*mine, f"v{self.versionIndex}")]

    def files(self, names: list[str] | None = None, after: str | None = None, first: int | None = None) -> Connection:
        entries = self.entries()
        kept = [name for name in sorted(entries) if not names or name in names]
        return connection([self._file(name, entries[name]["digest"]) for name in kept], first, after)

    def filesByManifestEntries(
        self,
        entries: list[dict[str, Any]],
        storageLayout: str = "V2",
        manifestVersion: str = "1",
        storageRegion: str | None = None,
    ) -> Connection:
        """Where the files of these manifest entries can be fetched."""
        return connection([self._file(entry["name"], entry["digest"]) for entry in entries])

    def _file(self, name: str, digest: str) -> File:
        return File(self.backend, name, f"objects/{digest}")

    def commit(self) -> None:
        """Become the next version of the collection, and take the aliases."""
        if self.state != "COMMITTED":
            self.state = "COMMITTED"
            self.versionIndex = len(self.artifactSequence.versions)
            self.artifactSequence.versions.append(self)
        for alias in {"latest": None} | dict.fromkeys(self.wanted_aliases):
            self.artifactSequence.aliased[alias] = self


class View:
    """A saved workspace or report."""

    def __init__(self, number: int, project: Project) -> None:
        self.id = identifier("View", str(number))
        self.project = project
        self.type = self.name = self.displayName = self.description = self.spec = ""
        self.createdAt = self.updatedAt = now()

    def content(self) -> dict[str, Any]:
        """What was saved, for tests."""
        found = json.loads(self.spec)
        assert isinstance(found, dict)
        return found


@dataclass
class Backend:
    """Everything that the server keeps. `lock` is held by whoever reads or writes it."""

    address: Callable[[], str]
    lock: threading.RLock = field(default_factory=threading.RLock)
    projects: dict[tuple[str, str], Project] = field(default_factory=dict)
    pending: dict[str, Artifact] = field(default_factory=dict)  # artifacts by id, committed or not
    views: dict[str, View] = field(default_factory=dict)
    storage: dict[str, bytes] = field(default_factory=dict)  # uploaded content by path
    written: dict[str, str] = field(default_factory=dict)  # path -> when
    numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    def url(self, path: str) -> str:
        return f"{self.address()}/storage/{quote(path)}"

    def store(self, path: str, content: bytes) -> None:
        self.storage[path] = content
        self.written[path] = now()

    def project(self, entity: str | None, name: str | None) -> Project:
        """The project, made if there is none: W&B makes one for the first run that names it."""
        key = (entity or ENTITY, name or "uncategorized")
        if key not in self.projects:
            self.projects[key] = Project(self, *key, next(self.numbers))
        return self.projects[key]

    def runs(self) -> list[Run]:
        return [run for project in self.projects.values() for run in project.members.values()]

    def stream(self, entity: str, project: str, name: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """The file stream: numbered lines of history, summary, events and output; the exit code; heartbeats.

        A line that was sent before replaces itself, so that what is sent twice is kept once.
        """
        found = self.projects.get((entity, project))
        run = found.run(name) if found else None
        if run is None:
            raise RequestError(f"run {entity}/{project}/{name} not found")
        for stream, chunk in (body.get("files") or {}).items():
            lines = run.lines.setdefault(stream, {})
            for place, line in enumerate(chunk["content"]):
                lines[chunk["offset"] + place] = line
        run.heartbeatAt = now()
        run.lost = False
        run.preempting = run.preempting or bool(body.get("preempting"))
        run.exit_code = body.get("exitcode", 0) if body.get("complete") else None
        return {"exitcode": run.exit_code, "limits": {}}


class Query:
    """The queries, by what they ask first."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self.viewer = User()  # who the key belongs to: asked by init, login and Api()
        # The server is new enough for the client, and has none of the features that need more than is done here.
        self.serverInfo: dict[str, Any] = {
            "cliVersionInfo": {"max_cli_version": "9.9.9"},
            "latestLocalVersionInfo": None,
            "features": [],
        }

    def organization(self, name: str) -> None:
        """Feature flags of an organization: there is none."""

    def entity(self, name: str) -> Entity:
        """A user or team, asked for its organization and its way to make digests."""
        return Entity(name)

    def project(self, name: str, entityName: str | None = None) -> Project | None:
        """Everything in a project: runs, their state and history, files, artifacts, saved views."""
        return self._backend.projects.get((entityName or ENTITY, name))

    def model(self, name: str, entityName: str | None = None) -> Project | None:
        """The older name of `project`: asks whether a run exists that is to be resumed."""
        return self.project(name, entityName)

    def models(self, entityName: str | None = None, after: str | None = None, first: int | None = None) -> Connection:
        """The projects of an entity: a report is saved into a project that exists."""
        mine = [item for (entity, _), item in self._backend.projects.items() if entity == (entityName or ENTITY)]
        return connection(mine, first, after)

    def artifact(self, id: str) -> Artifact | None:
        """An artifact's manifest and files, to download it."""
        return self._backend.pending.get(id)

    def clientIDMapping(self, clientID: str) -> dict[str, str] | None:
        """The id of an artifact that the client knows only by the id it made up: one that it has just logged."""
        found = [item for item in self._backend.pending.values() if item.client_id == clientID]
        return {"serverID": found[-1].id} if found else None

    def view(self, id: str) -> View | None:
        """A saved report."""
        return self._backend.views.get(id)


class Mutation:
    """The mutations. `input` is what the client sends; the answer holds what has changed."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def upsertBucket(self, input: dict[str, Any]) -> dict[str, Any]:
        """Make a run, or change what is known of it."""
        backend = self._backend
        name = input.get("name")
        if name:
            project = backend.project(input.get("entityName"), input.get("modelName"))
        else:
            known = next((run for run in backend.runs() if run.id == input.get("id")), None)
            if known is None:
                raise RequestError(f"run {input.get('id')} not found")
            project, name = known.project, known.name
        inserted = name not in project.members
        run = project.members.setdefault(name, Run(project, name))
        for sent, kept in (
            ("displayName", "displayName"),
            ("groupName", "group"),
            ("jobType", "jobType"),
            ("commit", "commit"),
            ("notes", "notes"),
            ("tags", "tags"),
            ("description", "description"),
            ("host", "host"),
            ("jobProgram", "program"),
            ("jobRepo", "repo"),
        ):
            if input.get(sent) is not None:
                setattr(run, kept, input[sent])
        if input.get("config"):
            run.raw_config = loads(input["config"])
        if input.get("summaryMetrics"):
            run.lines["wandb-summary.json"] = {0: input["summaryMetrics"]}
        if input.get("state") in (None, "running", "pending"):
            run.lost = False
        return {"bucket": run, "inserted": inserted}

    def createRunFiles(self, input: dict[str, Any]) -> dict[str, Any]:
        """Where the run's files are to be uploaded."""
        run = self._run(input)
        return {"runID": run.id, "uploadHeaders": [], "files": [run.file(name) for name in input["files"]]}

    def markRunFilesUploaded(self, input: dict[str, Any]) -> dict[str, Any]:
        """The run's files are there."""
        return {"success": True}

    def createArtifact(self, input: dict[str, Any]) -> dict[str, Any]:
        """A new version, or the version that has the same content already."""
        backend = self._backend
        project = backend.project(input.get("entityName"), input.get("projectName"))
        name = input.get("artifactCollectionName") or input["artifactCollectionNames"][0]
        kind = input["artifactTypeName"]
        collection = project.collections.setdefault(name, ArtifactSequence(project, name, kind))
        if collection.kind != kind:
            raise RequestError(f"artifact {name!r} is of type {collection.kind!r}, not {kind!r}")
        same = [item for item in collection.versions if item.digest == input["digest"]]
        if same and input.get("enableDigestDeduplication"):
            same[-1].client_id = input.get("clientID")
            same[-1].wanted_aliases = [item["alias"] for item in input.get("aliases") or []]
            same[-1].commit()
            return {"artifact": same[-1]}
        run = project.run(input["runName"]) if input.get("runName") else None
        made = Artifact(collection, run, next(backend.numbers), input)
        backend.pending[made.id] = made
        return {"artifact": made}

    def createArtifactManifest(self, input: dict[str, Any]) -> dict[str, Any]:
        """Where the list of an artifact's files is to be uploaded."""
        return {"artifactManifest": ArtifactManifest(self._artifact(input["artifactID"]))}

    def updateArtifactManifest(self, input: dict[str, Any]) -> dict[str, Any]:
        """The same, for a list that is uploaded in several parts."""
        manifests = map(ArtifactManifest, self._backend.pending.values())
        return {"artifactManifest": next(item for item in manifests if item.id == input["artifactManifestID"])}

    def createArtifactFiles(self, input: dict[str, Any]) -> dict[str, Any]:
        """Where an artifact's files are to be uploaded: by content, and nowhere if that is here already."""
        nodes: list[dict[str, Any]] = []
        for told in input["artifactFiles"]:
            path = f"objects/{told['md5']}"
            nodes.append(
                {
                    "storagePath": path,
                    "uploadUrl": None if path in self._backend.storage else self._backend.url(path),
                    "uploadHeaders": [],
                    "uploadMultipartUrls": None,
                    "artifact": self._artifact(told["artifactID"]),
                }
            )
        return {"files": connection(nodes)}

    def commitArtifact(self, input: dict[str, Any]) -> dict[str, Any]:
        """All of an artifact has arrived: from now on it can be used.

        A version some of whose files are not here is refused.
        """
        artifact = self._artifact(input["artifactID"])
        missing = [
            name
            for name, entry in artifact.entries().items()
            if "ref" not in entry and f"objects/{entry['digest']}" not in self._backend.storage
        ]
        if missing or not artifact.currentManifest.file.content:
            raise RequestError(f"artifact {artifact.artifactSequence.name!r} lacks {missing or 'its manifest'}")
        artifact.commit()
        return {"artifact": artifact}

    def updateArtifact(self, input: dict[str, Any]) -> dict[str, Any]:
        """Change an artifact's description or metadata."""
        artifact = self._artifact(input["artifactID"])
        for name in ("description", "metadata"):
            if input.get(name) is not None:
                setattr(artifact, name, input[name])
        return {"artifact": artifact}

    def useArtifact(self, input: dict[str, Any]) -> dict[str, Any]:
        """A run uses an artifact."""
        artifact = self._artifact(input["artifactID"])
        self._run(input).used.append(artifact)
        return {"artifact": artifact}

    def addAliases(self, input: dict[str, Any]) -> dict[str, Any]:
        """Give a version more names."""
        artifact = self._artifact(input["artifactID"])
        for told in input["aliases"]:
            artifact.artifactSequence.aliased[told["alias"]] = artifact
        return {"success": True}

    def deleteAliases(self, input: dict[str, Any]) -> dict[str, Any]:
        """Take names from a version."""
        artifact = self._artifact(input["artifactID"])
        for told in input["aliases"]:
            artifact.artifactSequence.aliased.pop(told["alias"], None)
        return {"success": True}

    def upsertModel(self, input: dict[str, Any]) -> dict[str, Any]:
        """Make a project."""
        before = len(self._backend.projects)
        project = self._backend.project(input.get("entityName"), input["name"])
        return {"project": project, "model": project, "inserted": len(self._backend.projects) > before}

    def upsertView(self, input: dict[str, Any]) -> dict[str, Any]:
        """Save a workspace or a report, or the next version of one."""
        views = self._backend.views
        view = views.get(input.get("id") or "")
        inserted = view is None
        if view is None:
            project = self._backend.project(input.get("entityName"), input.get("projectName"))
            view = View(next(self._backend.numbers), project)
            views[view.id] = view
        for name in ("type", "name", "displayName", "description", "spec"):
            if input.get(name) is not None:
                setattr(view, name, input[name])
        view.updatedAt = now()
        return {"view": view, "inserted": inserted}

    def deleteView(self, input: dict[str, Any]) -> dict[str, Any]:
        """Delete a workspace or a report."""
        return {"success": self._backend.views.pop(input["id"], None) is not None, "pendingDrafts": []}

    def _run(self, input: Mapping[str, Any]) -> Run:
        project = self._backend.project(input.get("entityName"), input.get("projectName"))
        run = project.run(input["runName"])
        if run is None:
            raise RequestError(f"run {project.entityName}/{project.name}/{input['runName']} not found")
        return run

    def _artifact(self, id: str) -> Artifact:
        if id not in self._backend.pending:
            raise RequestError(f"artifact {id} not found")
        return self._backend.pending[id]
