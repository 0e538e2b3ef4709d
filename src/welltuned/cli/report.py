"""`welltuned report`: build a study's report from what is stored; trains nothing and may be called while it runs."""

from welltuned.cli._options import Json, StudyFolder


def command(study: StudyFolder, as_json: Json = False) -> None:
    """Build the report of a study again."""
    from welltuned.cli._text import print_json
    from welltuned.study import Study

    page = Study(study).report()
    if as_json:
        print_json({"report": str(page)})
    else:
        print(f"look at {page}")
