"""`python -m ensemble.serve`: a page and an HTTP endpoint to try a trained model."""

import logging
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib.util import find_spec
from ipaddress import ip_address
from pathlib import Path

from configs.errors import ConfigError
from ensemble.cli.checks import check_face_flags, load_plugins
from ensemble.cli.command_line import load_backend, run_command
from ensemble.cli.flags import Parser, add_prediction_flags
from ensemble.model.runtimes import is_export, read_card
from ensemble.runs.run import open_model

log = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> int:
    """Serves a model until it is interrupted."""
    return run_command(lambda: _serve(argv))


def _serve(argv: Sequence[str] | None) -> None:
    args = _parser().parse_args(argv)
    if not args.max_megabytes > 0:
        raise ConfigError(f"--max-megabytes is above 0. Received: {args.max_megabytes}.")
    for module in ("starlette", "uvicorn"):
        if find_spec(module) is None:
            raise ConfigError(
                f"Serving needs {module}. "
                "Install it with `pip install 'multibranch-ensemble[serve]'`."
            )
    run = open_model(args.run)
    load_plugins(run.config.plugins if run else [])
    search = check_face_flags(
        args.faces, args.face_model, args.face_threshold, largest=args.largest
    )
    # before the slow start, so that an address in use costs no wait
    listener = listen(args.host, args.port)
    if not is_export(args.run):
        load_backend()

    import uvicorn

    from ensemble.commands.predict.predictor import make_predictor
    from ensemble.commands.serve.service import LOOPBACK, Limits, build_app

    predictor = make_predictor(run or args.run, search, args.min_confidence)
    card = run.folder / "card.md" if run else None
    loopback, host = is_loopback(listener), in_url(args.host)
    app = build_app(
        predictor,
        name=run.name if run else _name_of(args.run),
        card=card.read_text("utf-8") if card and card.is_file() else None,
        limits=Limits(upload_bytes=round(args.max_megabytes * 2**20)),
        hosts=(*LOOPBACK, host) if loopback else ("*",),
    )
    if not loopback:
        log.warning(
            "%s is reached from other machines, and asks for no password. Browsers lend their "
            "camera to https and to localhost only.",
            args.host,
        )
    print(f"http://{host}:{listener.getsockname()[1]}/ (Ctrl-C ends it)", flush=True)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", server_header=False))
    with suppress(KeyboardInterrupt):  # the way to end it
        server.run(sockets=[listener])


def listen(host: str, port: int) -> socket.socket:
    """Opens a listening socket; port 0 takes a free one.

    Raises:
        ConfigError: If the address is invalid or in use.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError, UnicodeError) as error:
        raise ConfigError(
            f"The address {in_url(host)}:{port} cannot be used ({error}). "
            "Choose another --port, where 0 takes a free one, or another --host."
        ) from error


def in_url(host: str) -> str:
    """Returns a host as in URLs and request headers: IPv6 in brackets."""
    return f"[{host}]" if ":" in host else host


def is_loopback(listener: socket.socket) -> bool:
    """Returns whether a socket is reachable only from this machine."""
    address = listener.getsockname()[0]
    return ip_address(address.partition("%")[0]).is_loopback


def _name_of(path: Path) -> str:
    """Returns the name of the run that an export was made of, or of a file."""
    source = read_card(path)["source"] if is_export(path) else {}
    return source.get("run", path.stem)


def _parser() -> Parser:
    parser = Parser(
        prog="python -m ensemble.serve",
        description="Serve a trained model: a page for the browser, and JSON on POST /predict.",
    )
    parser.add_argument(
        "run",
        type=Path,
        metavar="RUN",
        help="folder that ensemble.train or ensemble.export wrote, or a .keras file",
    )
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default: this machine only)"
    )
    parser.add_argument("--port", type=int, default=8000, help="0 takes a free one (default: 8000)")
    parser.add_argument(
        "--max-megabytes",
        type=float,
        default=20,
        metavar="MB",
        help="largest size of an image (default: 20)",
    )
    add_prediction_flags(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
