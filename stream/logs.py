"""Logging, set up once by each process: one line a record, and no flood while a server is away."""

import logging
import time

# While a broker is away aiokafka logs about ten errors a second: the same line is shown this often at the most.
_REPEAT_S = 10.0
_CHATTY = ("aiokafka", "faust", "mode", "websockets", "stream.app")


class RepeatFilter(logging.Filter):
    """Lets a template through once in ``_REPEAT_S``, with the number that was held back in between."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: dict[tuple[str, int, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the record is shown."""
        if record.levelno < logging.WARNING:
            return True
        key = (record.name, record.levelno, str(record.msg))
        shown_s, held = self._seen.get(key, (float("-inf"), 0))
        now_s = time.monotonic()
        if now_s - shown_s < _REPEAT_S:
            self._seen[key] = (shown_s, held + 1)
            return False
        self._seen[key] = (now_s, 0)
        if held:
            record.msg = f"{record.msg} [and {held} more like this]"
        return True


def set_up_logging(level: str) -> None:
    """Log to standard error at ``level``; frameworks only from WARNING, unless the level is DEBUG."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
    handler.addFilter(RepeatFilter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    if level != "DEBUG":
        for name in _CHATTY:
            logging.getLogger(name).setLevel(logging.WARNING)
        # "Timer is overlapping": a busy second, which the checkpoint metric shows better.
        logging.getLogger("mode.timers").setLevel(logging.ERROR)
