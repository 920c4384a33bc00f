"""The page in a real browser."""

import io
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from hotshot_jax.server.api.guard import Access
from tests.server.fakes import Serving, until
from tests.server.page.conftest import page_at

PROMPT = "a yellow star spinning on a teal background"
KEY = "a very secret key of the server"
MADE = "article[data-status=completed] img.hj-clip"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Serving]]:
    with page_at(tmp_path_factory.mktemp("page")) as served:
        yield served


@pytest.fixture
def serving(served: tuple[str, Serving]) -> Iterator[Serving]:
    yield served[1]
    served[1].making.gate.set()
    served[1].making.halfway.set()
    served[1].making.at_step = lambda clips: None


class Tab:
    """A tab of the browser, which keeps in mind what went wrong and who was asked."""

    def __init__(self, context: Any, address: str):
        self.address = address
        self.page = context.new_page()
        self.page.set_default_timeout(60_000)
        self.wrong: list[str] = []
        self.asked: set[str] = set()
        self.page.on("request", lambda request: self.asked.add(request.url.partition("?")[0]))
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("response", self._see)
        self.page.on(
            "console", lambda said: self.wrong.append(said.text) if said.type == "error" else None
        )

    def _see(self, response: Any) -> None:
        if response.status >= 400:
            self.wrong.append(f"{response.status} {response.url}")

    def open(self, query: str = "") -> "Tab":
        self.page.goto(self.address + query)
        self.page.wait_for_selector("#gallery h2")
        return self

    def make(self, prompt: str = PROMPT) -> None:
        self.page.fill("#prompt textarea", prompt)
        self.page.get_by_role("button", name="Make a clip").click()

    def made(self, count: int = 1) -> Any:
        clips = self.page.locator(MADE)
        clips.nth(count - 1).wait_for()
        self.page.wait_for_function(
            "made => [...document.querySelectorAll(made)].every(clip => clip.naturalWidth > 0)",
            arg=MADE,
        )
        assert clips.count() == count
        return clips

    @property
    def jobs(self) -> list[str]:
        """Those that the address names, once it does."""
        self.page.wait_for_url("**/?job=video_*")
        return self.page.url.partition("job=")[2].split(",")

    def in_gallery(self, id: str) -> Any:
        """A clip of the gallery, which comes a moment after the clip itself."""
        item = self.page.locator(f"#gallery li:has([data-job={id}])")
        item.wait_for()
        return item

    @property
    def others(self) -> set[str]:
        """Whoever else was asked."""
        return {url for url in self.asked if not url.startswith((self.address, "data:", "blob:"))}


@pytest.fixture
def tab(chromium: Any, served: tuple[str, Serving]) -> Iterator[Tab]:
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    yield Tab(context, served[0])
    context.close()


def test_a_person_makes_a_clip_and_finds_it_again(tab: Tab, serving: Serving) -> None:
    serving.making.at_step = lambda clips: time.sleep(0.05)
    serving.making.halfway.clear()
    page = tab.open().page
    tab.make()
    bar = page.locator("progress")
    bar.wait_for()
    page.get_by_text(re.compile(r"denoising, \d+ %, \d+ s left")).wait_for()
    page.locator("img.hj-preview[src^='data:image/webp']").wait_for()
    serving.making.at_step = lambda clips: None
    serving.making.halfway.set()
    clip = tab.made().first
    assert clip.get_attribute("alt") == PROMPT
    page.wait_for_url(re.compile(r"\?job=video_[0-9a-f]{32}$"))
    (id,) = tab.jobs
    job = serving.service.job(id)
    assert job.told["size"] == "128x128" and job.told["num_frames"] == 8
    for form, kind in (("GIF", "gif"), ("MP4", "mp4"), ("WebP", "webp")):
        with page.expect_download() as download:
            page.get_by_role("link", name=form, exact=True).click()
        assert download.value.suggested_filename == f"{id}.{kind}"
    page.reload()
    assert tab.made().first.get_attribute("src") == f"clips/{id}.gif"
    assert not tab.others and not tab.wrong


def test_a_reload_finds_a_clip_that_is_being_made_and_it_can_be_stopped(
    tab: Tab, serving: Serving
) -> None:
    serving.making.gate.clear()
    page = tab.open().page
    tab.make()
    page.locator("progress").wait_for()
    page.wait_for_url("**/?job=video_*")
    page.reload()
    page.locator("progress").wait_for()
    # What the reload broke off is an error to the page that is gone.
    tab.wrong.clear()
    page.get_by_role("button", name="Stop").click()
    (id,) = tab.jobs
    # The click is seen by the page first, and by the server later.
    until(lambda: serving.service.job(id).finished)
    serving.making.gate.set()
    page.get_by_text("Stopped: there is nothing to be had.").wait_for()
    page.get_by_role("button", name="Stop").click()
    page.get_by_text("There is nothing to stop.").wait_for()
    assert not tab.wrong


def test_errors_are_told_in_words(tab: Tab, serving: Serving) -> None:
    page = tab.open().page
    alert = page.get_by_role("alert")
    tab.make(" ")
    alert.get_by_text("`prompt` is missing; say what to show.").wait_for()
    page.get_by_label("Seed").fill("many")
    tab.make()
    alert.get_by_text("`seed` is no whole number.").wait_for()
    page.get_by_label("Seed").fill("7")
    serving.making.at_step = lambda clips: 1 // 0
    tab.make()
    alert.get_by_text("The server made a mistake; its log says where.").wait_for()
    assert not tab.wrong
    page.goto(f"{tab.address}?job=video_{'0' * 32}")
    alert.get_by_text("That clip is not kept any more, or never was.").wait_for()


def test_two_tabs_at_once(tab: Tab, serving: Serving) -> None:
    serving.making.gate.clear()
    other = Tab(tab.page.context, tab.address).open()
    tab.open()
    tab.make("a red circle growing on a black background")
    other.make("a blue cross shrinking on a gray background")
    other.page.get_by_text("waiting, number 1 in the queue").wait_for()
    serving.making.gate.set()
    assert "red circle" in tab.made().first.get_attribute("alt")
    assert "blue cross" in other.made().first.get_attribute("alt")
    assert tab.page.url != other.page.url


def test_two_settings_side_by_side(tab: Tab, serving: Serving) -> None:
    page = tab.open().page
    page.get_by_text("Compare two clips").click()
    page.get_by_label("Make a second clip with").click()
    page.get_by_role("option", name="another guidance").click()
    page.get_by_label("Which is").fill("2.5")
    tab.make()
    tab.made(2)
    assert page.locator(".hj-card h2").all_inner_texts() == ["guidance 5", "guidance 2.5"]
    first, second = (serving.service.job(id) for id in tab.jobs)
    assert first.told["seed"] == second.told["seed"]


def test_settings_are_taken_up_from_a_file_and_from_the_gallery(
    tab: Tab, serving: Serving, tmp_path: Path
) -> None:
    values = {"prompt": PROMPT, "width": 64, "height": 64, "video_length": 4, "steps": 3}
    id = serving.service.submit("video", values | {"seed": 11, "loop": True}).id
    serving.ended(id)
    path = tmp_path / "any name.gif"
    path.write_bytes(serving.service.result(id, "gif").read_bytes())
    page = tab.open().page
    page.get_by_text("Take up a clip").click()
    page.set_input_files("input[type=file][accept*=gif]", path)
    page.get_by_text("The settings of that file are taken up.").wait_for()
    assert page.get_by_label("Seed").input_value() == "11"
    assert page.locator("#prompt textarea").input_value() == PROMPT
    assert page.get_by_label("Loop").is_checked()
    page.get_by_label("Seed").fill("12")
    tab.make()
    tab.made()
    (made,) = tab.jobs
    again = serving.service.job(made)
    asked = {name: again.values[name] for name in (*values, "seed", "loop")}
    assert asked == values | {"seed": 12, "loop": True}
    # The gallery is drawn anew when the clip is there.
    item = tab.in_gallery(made)
    item.get_by_role("button", name="Use the settings of").click()
    page.get_by_text("The settings are taken up.").wait_for()
    page.on("dialog", lambda dialog: dialog.accept())
    item.get_by_role("button", name="Delete").click()
    item.wait_for(state="detached")
    assert not tab.wrong


def test_pictures_and_prompts_by_frame(tab: Tab, serving: Serving) -> None:
    picture = io.BytesIO()
    Image.new("RGB", (128, 128), "teal").save(picture, "PNG")
    page = tab.open().page
    page.get_by_text("Pictures and prompts by frame").click()
    sent = {"name": "first.png", "mimeType": "image/png", "buffer": picture.getvalue()}
    page.set_input_files("input[type=file] >> nth=0", sent)
    page.locator("img[src*='/gradio_api/file=']").wait_for()
    page.get_by_label("Prompts by frame").fill("4: a blue star spinning on a teal background")
    tab.make()
    tab.made()
    job = serving.service.job(*tab.jobs)
    assert job.values["prompt_at"] == {"4": "a blue star spinning on a teal background"}
    assert (serving.store.job_folder(job.id) / "uploads" / "first_frame").read_bytes() == (
        picture.getvalue()
    )
    assert not tab.others and not tab.wrong


def test_what_a_person_writes_is_text(tab: Tab) -> None:
    prompt = "a <b id=no>star</b> ${alert(1)} {{7*7}} `x` \\u0041 &lt; \"'"
    tab.open()
    tab.make(prompt)
    assert tab.made().first.get_attribute("alt") == prompt
    item = tab.in_gallery(*tab.jobs)
    assert item.locator("img").get_attribute("alt") == prompt
    assert tab.page.locator("#no").count() == 0 and not tab.wrong


@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (1280, "dark")])
def test_everybody_can_use_it(
    chromium: Any, served: tuple[str, Serving], width: int, scheme: str
) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    context = chromium.new_context(
        viewport={"width": width, "height": 844}, color_scheme=scheme, has_touch=width < 500
    )
    try:
        tab = Tab(context, served[0]).open()
        tab.make()
        tab.made()
        for folded in ("More settings", "Pictures and prompts", "Compare two", "Take up"):
            tab.page.get_by_text(folded).first.click()
        tab.page.get_by_label("Prompts by frame").wait_for()
        wide = tab.page.evaluate("document.documentElement.scrollWidth")
        assert wide <= width
        found = axe.run(tab.page)
        serious = [
            (each["id"], [node["target"] for node in each["nodes"]])
            for each in found.response["violations"]
            if each["impact"] in ("serious", "critical")
        ]
        assert not serious
    finally:
        context.close()


def test_with_a_key_the_page_asks_for_it(chromium: Any, tmp_path: Path) -> None:
    context = chromium.new_context()
    try:
        with page_at(tmp_path, Access(KEY, login_path="/login")) as (address, _):
            tab = Tab(context, address)
            tab.page.goto(address)
            for key in ("wrong", KEY):
                tab.page.get_by_label("Key of this server").fill(key)
                tab.page.get_by_role("button").click()
            tab.page.wait_for_selector("#gallery h2")
            tab.make()
            tab.made()
            context.close()
    finally:
        context.close()


def test_a_server_that_shuts_down_says_so_and_does_not_wait_for_pages(
    chromium: Any, tmp_path: Path
) -> None:
    context = chromium.new_context()
    try:
        with page_at(tmp_path) as (address, serving):
            serving.making.gate.clear()
            page = Tab(context, address).open()
            page.make()
            page.page.locator("progress").wait_for()
            serving.service.closing = True
            page.page.get_by_text("The server is shutting down.").wait_for()
            started = time.monotonic()
        # Who waited for the page would wait for as long as it is open.
        assert time.monotonic() - started < 30
    finally:
        context.close()
