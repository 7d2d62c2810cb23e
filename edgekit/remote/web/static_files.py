"""Media types and headers of static files that run models in a browser."""

from __future__ import annotations

from pathlib import PurePosixPath

from edgekit_agent.apps.serving.pages import DEFAULT_TYPE, MEDIA_TYPES

# No request leaves the origin; 'wasm-unsafe-eval' allows WebAssembly and no eval of JavaScript.
CONTENT_POLICY = "; ".join(
    (
        "default-src 'self'",
        "script-src 'self' 'wasm-unsafe-eval'",
        "img-src 'self' blob: data:",
        "media-src 'self' blob:",
        "worker-src 'self'",
        "object-src 'none'",
        "base-uri 'none'",
        "form-action 'none'",
    )
)
# frame-ancestors has no effect in a meta element. With the two isolation headers the browser
# allows threads and exact times.
HEADERS = {
    "Content-Security-Policy": f"{CONTENT_POLICY}; frame-ancestors 'none'",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), microphone=(self), geolocation=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def get_media_type(name: str) -> str:
    """Return the Content-Type of a file by the end of its name."""
    return MEDIA_TYPES.get(PurePosixPath(name).suffix.lower(), DEFAULT_TYPE)
