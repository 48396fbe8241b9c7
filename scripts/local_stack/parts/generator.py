"""The sample's source of changes: a gentle generator that keeps a small shop busy."""

from pymongo import MongoClient
from pymongo.errors import PyMongoError

from local_stack.errors import NotReady
from local_stack.numerals import plural
from local_stack.parts.part import Part
from local_stack.stack import Stack

CHECK_TIMEOUT_MS = 3_000
DATABASE = "shop"


def generator(stack: Stack) -> Part:
    script = stack.layout.root / "tests" / "load" / "data_generators" / "change_generator.py"
    rate = f"{stack.settings.sample_rate:g}"
    return Part(
        name="generator",
        endpoint=f"{rate} changes/s into {DATABASE}",
        ready=lambda: check(stack.mongodb_uri),
        command=(
            *(str(stack.layout.venv_bin / "python"), str(script)),
            *("--database", DATABASE, "--rate", rate),
        ),
        environment={"MONGODB_URI": stack.mongodb_uri},
        needs=("mongodb",),
    )


def check(uri: str) -> str:
    try:
        with MongoClient[dict[str, object]](
            uri, serverSelectionTimeoutMS=CHECK_TIMEOUT_MS, socketTimeoutMS=CHECK_TIMEOUT_MS
        ) as client:
            orders = client[DATABASE]["orders"].estimated_document_count()
    except PyMongoError as error:
        raise NotReady(f"MongoDB does not answer: {str(error)[:200]}") from None
    if orders == 0:
        raise NotReady(f"{DATABASE}.orders is empty")
    return plural(orders, "order")
