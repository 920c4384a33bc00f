"""The page: what stands where, and what happens when."""

import logging
import shutil
from collections.abc import AsyncIterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import anyio.to_thread
import gradio as gr

from hotshot_jax.errors import HotshotError
from hotshot_jax.server.failures import Unknown
from hotshot_jax.server.job import Job, Status, is_id
from hotshot_jax.server.page import cards
from hotshot_jax.server.page.asked import TakenUp, asked_for, taken_up
from hotshot_jax.server.page.fields import (
    Fields,
    compared_fields,
    main_fields,
    other_fields,
    unread,
)
from hotshot_jax.server.page.following import MOST_TOGETHER, Following
from hotshot_jax.server.service import Service
from hotshot_jax.server.worker import failure_of, log_without_words

logger = logging.getLogger(__name__)

TITLE = "hotshot-jax"
_MOST_IN_GALLERY = 24
# The address of the page names what it shows, so that it is found again.
_REMEMBER = """
watch('value', () => {
    const shown = element.querySelector('[data-jobs]');
    if (!shown) return;
    const address = new URL(window.location);
    if (address.searchParams.get('job') === shown.dataset.jobs) return;
    address.searchParams.set('job', shown.dataset.jobs);
    history.replaceState(null, '', address.toString().replaceAll('%2C', ','));
    // On a telephone it is below all fields.
    if (element.getBoundingClientRect().top > 0.8 * window.innerHeight) element.scrollIntoView();
});
"""
_CLICKS = """
element.addEventListener('click', (event) => {
    const button = event.target.closest('button[data-act]');
    if (!button) return;
    if (button.dataset.act === 'delete' && !confirm('Delete this clip?')) return;
    trigger('click', {act: button.dataset.act, job: button.dataset.job});
});
"""
# What nobody but this page calls.
_PRIVATE: dict[str, Any] = {
    "api_visibility": "private",
    "concurrency_limit": None,
    "show_progress": "hidden",
}


class Page:
    """The page of a service.

    Args:
        service: makes what is asked for.
        everybodys: whether the gallery has all clips that are kept, or those of the browser.
    """

    def __init__(self, service: Service, *, everybodys: bool = True):
        self._service = service
        self._everybodys = everybodys
        self._following = Following(service)
        self.blocks = self._laid_out()

    def _laid_out(self) -> gr.Blocks:
        service = self._service
        usual = service.usual()
        with gr.Blocks(title=TITLE, analytics_enabled=False) as blocks:
            gr.HTML(
                f'<header class="hj-head"><h1>{TITLE}</h1><p>Text to GIF with '
                f"{cards.escaped(service.served.id)}.</p></header>"
            )
            with gr.Row():
                with gr.Column(scale=5, min_width=300):
                    main = main_fields(usual, service.limits)
                    with gr.Row():
                        make = gr.Button("Make a clip", variant="primary", min_width=130)
                        stop = gr.Button("Stop", min_width=130)
                    others = other_fields(usual, service.served.loras)
                    self._fields = Fields(main | others, *compared_fields())
                    with gr.Accordion("Take up a clip", open=False):
                        dropped = gr.File(
                            label="Drop a GIF, MP4 or WebP that was made here",
                            file_types=[".gif", ".mp4", ".webp"],
                            height=170,
                        )
                with gr.Column(scale=6, min_width=300):
                    self._notice = gr.HTML(js_on_load=None, elem_id="notice")
                    self._results = gr.HTML(
                        self._nothing(), js_on_load=_REMEMBER, elem_id="results"
                    )
            self._gallery = gr.HTML(js_on_load=_CLICKS, elem_id="gallery")
            self._jobs = gr.State(())
            self._own = gr.BrowserState([], storage_key="hotshot-jax", secret="not a secret")
            self._wire(blocks, make, stop, unread(dropped))
        blocks.queue(api_open=False, default_concurrency_limit=None)
        return blocks

    def _wire(self, blocks: gr.Blocks, make: Any, stop: Any, dropped: Any) -> None:
        shown = [self._notice, self._results, self._jobs, self._own, self._gallery]
        taken_up = [*self._fields.by_name.values(), *shown]
        asked = {*self._fields.all, self._own}
        gr.on(
            [make.click, self._fields.by_name["prompt"].submit],
            self._make,
            asked,
            shown,
            **_PRIVATE,
            trigger_mode="multiple",
        )
        stop.click(self._stop, self._jobs, self._notice, **_PRIVATE)
        self._gallery.click(self._act, self._own, taken_up, **_PRIVATE)
        dropped.upload(self._drop, dropped, taken_up, **_PRIVATE)
        blocks.load(self._resume, self._own, shown, **_PRIVATE)

    def _nothing(self) -> str:
        return '<p class="hj-note hj-empty">Your clip will be here.</p>'

    async def _make(
        self, data: dict[Any, Any], request: gr.Request
    ) -> AsyncIterator[dict[Any, Any]]:
        """Takes one job or two, and shows them."""
        try:
            ids = await anyio.to_thread.run_sync(partial(self._submitted, data))
        except Exception as error:
            yield {self._notice: told(error)}
            return
        own = [*ids, *(data[self._own] or [])][:_MOST_IN_GALLERY]
        yield {self._notice: "", self._jobs: ids, self._own: own}
        async for each in self._shown(request, ids, own):
            yield each

    async def _resume(
        self, own: list[str] | None, request: gr.Request
    ) -> AsyncIterator[dict[Any, Any]]:
        """Shows the jobs of the address."""
        ids = tuple(request.query_params.get("job", "").split(","))[:MOST_TOGETHER]
        ids = tuple(id for id in ids if is_id(id))
        yield {self._jobs: ids, self._gallery: await self._kept(own)}
        if ids:
            async for each in self._shown(request, ids, own):
                yield each

    async def _shown(
        self, request: gr.Request, ids: tuple[str, ...], own: list[str] | None
    ) -> AsyncIterator[dict[Any, Any]]:
        async for now in self._following.shown(request.session_hash or "", ids):
            yield {self._results: now}
        yield {self._gallery: await self._kept(own)}

    def _submitted(self, data: dict[Any, Any]) -> tuple[str, ...]:
        fields = self._fields.read(data)
        first = asked_for(fields)
        asked = [first]
        second = self._fields.second(data)
        if second:
            # They differ in nothing else.
            same = fields if "seed" in second else {**fields, "seed": str(first.values["seed"])}
            asked.append(asked_for({**same, **second}))
        if any(each.pictures for each in asked):
            return tuple(self._with_pictures(each.values, each.pictures) for each in asked)
        return tuple(self._service.submit("video", each.values).id for each in asked)

    def _with_pictures(self, values: Mapping[str, Any], pictures: Mapping[str, Path]) -> str:
        def put(place: Path) -> None:
            place.mkdir()
            for name, path in pictures.items():
                shutil.copyfile(path, place / name)

        return self._service.submit("video", values, pictures, put).id

    async def _stop(self, ids: tuple[str, ...]) -> str:
        """Cancels what is shown and still being made."""

        def stop() -> int:
            stopped = 0
            for id in ids:
                if not self._service.job(id).finished:
                    self._service.delete(id)
                    stopped += 1
            return stopped

        try:
            stopped = await anyio.to_thread.run_sync(stop)
        except Unknown:
            stopped = 0
        return "" if stopped else cards.message("There is nothing to stop.")

    async def _act(self, own: list[str] | None, event: gr.EventData) -> dict[Any, Any]:
        """Takes up the settings of a clip of the gallery, or deletes it."""
        id = str(event._data.get("job"))
        try:
            if event._data.get("act") == "take":
                clip = await anyio.to_thread.run_sync(self._service.result, id, "gif")
                found = await anyio.to_thread.run_sync(taken_up, clip)
                return self._filled(found, "The settings are taken up.")
            await anyio.to_thread.run_sync(self._service.delete, id)
            return {self._notice: "", self._gallery: await self._kept(own)}
        except Exception as error:
            return {self._notice: told(error)}

    async def _drop(self, path: str | None) -> dict[Any, Any]:
        """Takes up the settings of a file."""
        if path is None:
            return {self._notice: ""}
        try:
            found = await anyio.to_thread.run_sync(taken_up, path)
            return self._filled(found, "The settings of that file are taken up.")
        except Exception as error:
            return {self._notice: told(error)}

    def _filled(self, found: TakenUp, text: str) -> dict[Any, Any]:
        fields = self._fields.by_name
        missing = [*found.left_out, *(name for name in found.fields if name not in fields)]
        if missing:
            text += (
                f" But for {', '.join(missing)}: pictures have to be given again, and for the rest "
                "this page has no field."
            )
        usual = dict.fromkeys((name for name in fields if name.startswith("lora ")), 0.0)
        values = {**usual, **found.fields}
        return {
            self._notice: cards.message(text),
            **{fields[name]: value for name, value in values.items() if name in fields},
        }

    async def _kept(self, own: list[str] | None) -> str:
        return await anyio.to_thread.run_sync(partial(self._gallery_of, own or []))

    def _gallery_of(self, own: list[str]) -> str:
        if self._everybodys:
            jobs = self._service.jobs("video", 4 * _MOST_IN_GALLERY, None, newest_first=True)
        else:
            jobs = [job for id in own if (job := self._if_kept(id)) is not None]
        made = [job for job in jobs if job.status == Status.COMPLETED]
        return cards.gallery(made[:_MOST_IN_GALLERY])

    def _if_kept(self, id: str) -> Job | None:
        try:
            return self._service.job(str(id))
        except Unknown:
            return None


def told(error: Exception) -> str:
    """An error as a person reads it."""
    if not isinstance(error, HotshotError):
        log_without_words(error)
    return cards.message(failure_of(error)[1], "error")
