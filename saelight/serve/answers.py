"""What the server is asked and answers, as pydantic models: they check requests, and describe the API."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

_PATH = Field(min_length=1, max_length=1_000)


class Described(BaseModel):
    """A model whose fields are described by what stands below them."""

    model_config = ConfigDict(use_attribute_docstrings=True)


class TrainRequest(Described):
    """What to train on, and what of the preset to change. Fields that are left out stay as the preset has them."""

    model_config = ConfigDict(extra="forbid")

    activation_data_path: Annotated[str, _PATH]
    """Activations as `data.path` takes them: shards, .npy, .parquet, …, `PATH:NAME`, in a folder given by `--data`."""
    layer_idx: Annotated[int, Field(ge=0, le=9_999)] | None = None
    """The layer: of a table with several, the one to train on; of shards, a check."""
    latent_dim: Annotated[int, Field(ge=1, le=2**24)] | None = None
    """d_sae of every SAE of the preset."""
    batch_size: Annotated[int, Field(ge=1, le=2**24)] | None = None
    """Tokens."""
    num_workers: Annotated[int, Field(ge=0, le=4_096)] | None = None
    """Accepted and not used: saelight reads by a thread of its own."""
    max_samples: Annotated[int, Field(ge=1)] | None = None
    """Rows to train on, chosen by the seed."""
    max_epochs: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """Passes over them."""
    name: Annotated[str, Field(min_length=1, max_length=80)] | None = None
    """The run's; by default the preset's, with a number."""


class Nothing(Described):
    """An empty object."""

    model_config = ConfigDict(extra="forbid")


class Problem(Described):
    """Why a request was refused."""

    error: str
    """One line, with what to do about it."""


class Folder(Described):
    """A run or a sweep that is shown."""

    key: str
    """What other requests call it, as `?of=KEY`."""
    kind: Literal["run", "sweep"]
    saes: int
    states: dict[str, int]
    """By state: how many SAEs."""
    step: float | None
    steps: float | None
    """Of all that are planned."""
    eta: float | None
    """Seconds."""
    changed: float
    """When it last changed, in seconds since 1970."""
    trouble: str | None
    """Why it cannot be read."""


class FolderList(Described):
    """All that is shown."""

    folders: list[Folder]
    strays: list[str]
    """What is not, as it leads elsewhere."""
    training: bool
    """Whether the server trains."""


class SAEProgress(Described):
    """How far one SAE is."""

    names: list[str]
    variant: str
    group: str | None
    state: str
    reason: str | None
    steps: float | None
    of_steps: float | None
    tokens: float | None
    loss: float | None
    l0: float | None
    fvu: float | None
    device: str | None
    eta: float | None


class Progress(Described):
    """How far a run or a sweep is: also each message of its streams."""

    of: str
    trouble: str | None
    groups: list[dict[str, Any]]
    saes: list[SAEProgress]


class Job(Described):
    """Training that was asked for over HTTP."""

    job: str
    """Its name: also its key among the folders."""
    preset: Literal["optimized", "fast"]
    state: Literal["waiting", "running", "stopping", "stopped", "finished", "failed"]
    error: str | None
    asked: dict[str, Any]
    notes: list[str]
    device: str | None
    folder: str
    page: str
    progress: str


class JobList(Described):
    """The queue, the first asked first."""

    jobs: list[Job]


class Cache(Described):
    """What one cache holds, and how it was used."""

    entries: int
    most: int
    hits: int
    misses: int


class CacheStats(Described):
    """The server's caches. A rate is null before anything was asked for."""

    feature_cache_hit_rate: float | None
    """Latents and curves."""
    provenance_cache_hit_rate: float | None
    """Folders of runs: where each SAE comes from, and what became of it."""
    inference_cache_hit_rate: float | None
    """Texts that were tried."""
    caches: dict[str, Cache]


class Curves(Described):
    """Training curves by SAE: `step`, `loss`, `l0`, `fvu`."""

    curves: dict[int, dict[str, list[float | None]] | None]


class LogText(Described):
    """A part of a group's log."""

    text: str
    next: int
    """Where to read on."""


class LatentInContext(Described):
    """A latent in a list, with one context."""

    id: int
    """The SAE's number in the document."""
    latent: int
    score: float | None = None
    """Of a search: how much the latent is about the text, at most 2."""
    density: float
    """The share of tokens at which it fires."""
    maximum: float
    tokens: list[str]
    """On which it fires most often."""
    context: list[dict[str, Any]]
    """Tokens: `text`, `activation`, `after_gap`."""


class LatentList(Described):
    """Latents of one SAE, or of all, found by a text."""

    found: list[LatentInContext]
    searched: int
    """SAEs that were looked through, of `of` whose latents are known."""
    of: int
    problems: list[str]


class TextRequest(Described):
    """A text to try on an SAE."""

    model_config = ConfigDict(extra="forbid")

    of: Annotated[str, _PATH]
    """The key of a run or a sweep."""
    id: Annotated[int, Field(ge=0)]
    """The SAE's number in its document."""
    text: Annotated[str, Field(min_length=1, max_length=4_000)]
    latents: Annotated[list[Annotated[int, Field(ge=0, le=2**24)]], Field(max_length=16)] = []
    """Latents to show whatever else fires."""


class TextLatent(Described):
    """What a latent does on a text."""

    latent: int
    maximum: float
    values: list[float]
    """One a token."""


class TextAnswer(Described):
    """A text through a model and an SAE."""

    tokens: list[dict[str, Any]]
    """`text`, `special`, and `latents`: the strongest, with their `value`."""
    latents: list[TextLatent]
    """Those asked for, then the strongest."""
    l0: float | None
    fvu: float | None
    """Over the tokens of this text that are not special."""
    cut: bool
    """Whether the text was longer than is read."""


class Health(Described):
    """That the server is there."""

    version: str
    training: bool
