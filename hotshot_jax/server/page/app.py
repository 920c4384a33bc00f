"""The page on an app, beside the API or alone."""

import asyncio
import functools
import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import gradio as gr
from fastapi import FastAPI
from starlette.routing import Mount

from hotshot_jax.server.api.app import guarded
from hotshot_jax.server.api.guard import Access
from hotshot_jax.server.api.videos import content_by_ending
from hotshot_jax.server.page.ending import Ending
from hotshot_jax.server.page.gate import PageMount
from hotshot_jax.server.page.layout import Page
from hotshot_jax.server.page.login import login_router
from hotshot_jax.server.page.uploads import uploads_router
from hotshot_jax.server.service import Service

_FONTS = ("system-ui", "sans-serif")
_FIXED_FONTS = ("ui-monospace", "monospace")


def add_page(app: FastAPI, service: Service, access: Access, *, everybodys: bool = True) -> None:
    """Puts the page at `/` of an app.

    Args:
        app: has other routes already, which come first.
        service: makes what is asked for.
        access: who may ask.
        everybodys: whether the gallery has all clips that are kept, or those of the browser.
    """
    folder = _uploads_folder()
    if access.api_key is not None:
        app.include_router(login_router(access.api_key))
    app.include_router(uploads_router(folder))
    app.add_api_route(
        "/clips/{video_id}.{ending}",
        content_by_ending,
        include_in_schema=False,
        response_model=None,
    )

    async def mount() -> None:
        _mount(app, Page(service, everybodys=everybodys).blocks, access)

    # Outside of a loop Gradio would make some of its own, and leave them open.
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, mount()).result()
    mounted = app.router.routes.pop()
    assert isinstance(mounted, Mount)
    ending = Ending(mounted.app, lambda: service.closing)
    app.router.routes.append(PageMount(ending, folder, framed=access.any_host))


def _mount(app: FastAPI, blocks: gr.Blocks, access: Access) -> None:
    gr.mount_gradio_app(
        app,
        blocks,
        "/",
        footer_links=[],
        run_history=False,
        show_error=False,
        max_file_size=access.most_body_bytes,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        enable_monitoring=False,
        theme=_theme(),
        css_paths=[Path(__file__).with_name("page.css")],
    )


def page_app(service: Service, access: Access) -> FastAPI:
    """The page alone, as for many who do not know of each other.

    Args:
        service: makes what is asked for; started and stopped by whoever runs the app.
        access: who may ask.
    """
    app = guarded(FastAPI(docs_url=None, redoc_url=None, openapi_url=None), service, access)
    add_page(app, service, access, everybodys=False)
    return app


def _theme() -> gr.themes.Base:
    """Gradio's, with fonts that everybody has and text that stands out from what is behind it."""
    quiet = {
        "body_text_color_subdued": "*neutral_600",
        "body_text_color_subdued_dark": "*neutral_300",
    }
    button = {
        f"button_primary_background_fill{each}": "*primary_700"
        for each in ("", "_dark", "_hover", "_hover_dark")
    }
    placeholder = {"input_placeholder_color": "*neutral_500"}
    theme = gr.themes.Default(font=_FONTS, font_mono=_FIXED_FONTS)
    return theme.set(**quiet, **button, **placeholder)


@functools.cache
def _uploads_folder() -> Path:
    """Gradio looks for it in the environment, whenever it needs it."""
    folder = os.environ.get("GRADIO_TEMP_DIR") or tempfile.mkdtemp(prefix="hotshot-jax-page-")
    os.environ["GRADIO_TEMP_DIR"] = folder
    Path(folder).mkdir(parents=True, exist_ok=True)
    return Path(folder)
