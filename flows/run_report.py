"""What becomes of one run, as the Prefect UI shows it, however the run ends."""

import base64
import contextlib

from flows.planning import StagePlan, make_plan
from flows.runs.request import Request, store_option
from flows.summary import stage_rows, tables
from flows.tables import markdown_table
from storage.artifacts.store import Artifact
from storage.errors import Fault, InputError
from storage.wording import counted, progress_text
from tasks.core.context import Progress
from tasks.core.markdown import fenced, inline, rows_markdown
from tasks.core.prefect_task import stopped_state
from tasks.core.stage import StageResult
from tasks.core.stopping import state_after

CHANGES_SHOWN = 4
"""Changed fields that the summary names of one stage; `pile plan` names all."""

LOSS_PLOT = "loss.png"
"""Report role of the picture of the losses."""

PICTURE_BYTES = 500_000
"""A larger picture is left out of the page."""


class Report:
    """What becomes of one run, and the page about it that the Prefect UI shows, however the run ends."""

    def __init__(self, request: Request, run_id: str) -> None:
        self.request = request
        self.run_id = run_id
        self.results: dict[str, StageResult] = {}
        self.ended: BaseException | None = None
        """What stopped the run before its end."""
        self.stage = ""
        """The stage that was begun last."""
        self.step = ""
        """How far that stage is: `120 of 400 steps`."""
        self.reasons = _reasons(request)

    def begins(self, stage: str) -> str:
        """Note that a stage begins; return its place: `stage 7 of 9`."""
        self.stage, self.step = stage, ""
        names = [step.stage.name for step in self.request.steps]
        return f"stage {names.index(stage) + 1} of {len(names)}"

    def watch(self, inner: Progress) -> Progress:
        """Return a view of progress that notes the step reached."""

        def progress(done: int, total: int, unit: str, note: str = "", /) -> None:
            self.step = progress_text(done, total, unit)
            inner(done, total, unit, note)

        return progress

    def markdown(self) -> str:
        """Return the page: how the run ended, where its result is, its stages and what they found."""
        request = self.request
        lines = [
            self._ending(),
            "",
            f"Run `{self.run_id}` of recipe **{inline(request.recipe.name)}** up to **{request.target}**; "
            f"store `{request.store.url}`.",
            *self._taken_away(),
            "",
            *markdown_table(self._stage_rows()),
            *self._why(),
        ]
        for step in request.steps:
            if step.stage.highlight and step.stage.name in self.results:
                artifact = self.results[step.stage.name].artifact
                for title, rows in tables(artifact).items():
                    lines += ["", f"### {title}", "", rows_markdown(rows)]
                lines += _loss_plot(artifact)
        return "\n".join(lines)

    def _ending(self) -> str:
        if self.ended is None:
            cached = sum(result.cached for result in self.results.values())
            return f"**Done**: {counted(len(self.results) - cached, 'stages')} made, {cached} cached."
        place = ""
        if self.stage and self.stage not in self.results:
            place = f" in **{self.stage}**" + (f" at {self.step}" if self.step else "")
        word = _word(self.ended)
        if word == "Failed":
            return failure(self.ended, place)
        return f"**{word}**{place}; the next run continues from the parts that are finished."

    def _stage_rows(self) -> list[dict[str, str]]:
        made = {row["stage"]: row for row in stage_rows(self.results)}
        nothing = {"time": "", "key": "", "holds": ""}
        rows = []
        for step in self.request.steps:
            name = step.stage.name
            state = "not reached"
            if name == self.stage and self.ended is not None:
                state = _word(self.ended).lower()
            rows.append(made.get(name) or {"stage": name, "state": state, **nothing})
        return rows

    def _why(self) -> list[str]:
        """Return a list of why stages ran. Not a column: the UI breaks no lines in tables and cuts wide ones."""
        of_reason: dict[str, list[str]] = {}
        for step in self.request.steps:
            name = step.stage.name
            result = self.results.get(name)
            ran = not result.cached if result else name == self.stage
            if ran and name in self.reasons:
                of_reason.setdefault(self.reasons[name], []).append(name)
        items = [f"- **{', '.join(names)}**: {inline(reason)}" for reason, names in of_reason.items()]
        return ["", "Why they ran:", "", *items] if items else []

    def _taken_away(self) -> list[str]:
        lines = []
        for step in self.request.steps:
            result = self.results.get(step.stage.name)
            if step.stage.result and result is not None:
                folder = result.artifact.open_folder(step.stage.result)
                code = (
                    "from transformers import AutoModelForCausalLM, AutoTokenizer\n"
                    f"folder = {str(folder)!r}\n"
                    "model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)\n"
                    "tokenizer = AutoTokenizer.from_pretrained(folder)"
                )
                where = store_option(self.request.store)
                command = f"pile generate {result.artifact.ref} --prompt 'Once upon a time'{where}"
                lines += ["", f"The model: `{folder}`", "", fenced(code), "", f"Or: `{command}`"]
        return lines


def failure(error: BaseException, place: str = "") -> str:
    """Return the line that says that and why a run failed; `place` is where, with a blank before it."""
    kind = "" if isinstance(error, InputError | Fault) else f"{type(error).__name__}: "
    return f"**Failed**{place}: {kind}{inline(str(error))}"


def _word(error: BaseException) -> str:
    return "Failed" if state_after(error) == "failed" else str(stopped_state(error).name)


def _reasons(request: Request) -> dict[str, str]:
    """Return of each stage why it is made again, as `pile plan` says it; what cannot be planned has none."""
    with contextlib.suppress(InputError, Fault, OSError):  # the stage itself meets it, with retries
        plans = make_plan(request.steps, request.store, request.force, request.recipe.name)
        return {plan.stage.name: _reason(plan) for plan in plans if plan.state != "cached"}
    return {}


def _reason(plan: StagePlan) -> str:
    shown = [f"{change.field} {change.old} -> {change.new}" for change in plan.changes[:CHANGES_SHOWN]]
    more = len(plan.changes) - len(shown)
    reason = "what it reads is new" if plan.state == "waiting" else plan.reason
    return "; ".join([reason, *shown, *([f"and {more} more"] if more else [])])


def _loss_plot(artifact: Artifact) -> list[str]:
    """Return the plot as a picture inside the page: the UI has no place that it could be fetched from."""
    picture = artifact.report(LOSS_PLOT)
    if not picture or len(picture) > PICTURE_BYTES:
        return []
    return ["", "### Loss", "", f"![Loss](data:image/png;base64,{base64.b64encode(picture).decode()})"]
