"""The routes of the page: its table's paths and no others."""

from fastapi import FastAPI, Response

from manyhead.serving.page import PAGE_HEADERS, PageFile, page_files


def add_page(app: FastAPI) -> None:
    """Adds a route for each of the page's files."""
    for path, file in page_files().items():
        _add(app, path, file)


def _add(app: FastAPI, path: str, file: PageFile) -> None:
    @app.get(path, include_in_schema=False, response_class=Response)
    async def send() -> Response:
        return Response(file.content, media_type=file.media_type, headers=dict(PAGE_HEADERS))
