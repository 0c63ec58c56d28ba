def parse_log_target(text: str) -> str:
    return text
