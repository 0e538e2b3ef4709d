"""Look at a base model and its data before planning: sites, sizes, token counts, and every problem found at once."""

from welltuned import data
from welltuned.errors import InputError, problem
from welltuned.models import base as bases
from welltuned.models import unpadded
from welltuned.models.sites import coverage, head_size, linear_modules
from welltuned.records import Site, Survey, SurveyJob


def survey(job: SurveyJob) -> Survey:
    """Return what there is to know; InputError holds the model's and the data's problems together."""
    config = job.config
    problems: list[str] = []
    base = counts = stored = None
    try:
        base = bases.skeleton(config.base, config.revision, config.target_modules)
        stored = bases.stored_dtype(config.base, config.revision)
    except InputError as error:
        problems += error.problems
    try:
        counts = data.counts(config, bases.load_tokenizer(config.base, config.revision))
    except InputError as error:
        problems += error.problems
    limit = None if base is None else base.max_positions
    if counts is not None and limit is not None and counts.longest_tokens > limit:
        advice = f"set max_length = {limit} or less"
        problems.append(
            problem("task.max_length", config.max_length, f"rows within the base's {limit} positions", advice)
        )
    if base is None or counts is None or problems:
        raise InputError(problems)
    text_config = base.model.config.get_text_config()
    return Survey(
        config_key=job.id,
        sites=tuple(Site(name, *base.shape(name)) for name in base.sites),
        num_parameters=sum(parameter.numel() for parameter in base.model.parameters()),
        num_base_weights=coverage(base.model, linear_modules(base.model))[1],
        num_head_weights=head_size(base.model),
        hidden_size=text_config.hidden_size,
        num_layers=text_config.num_hidden_layers,
        num_heads=text_config.num_attention_heads,
        vocab_size=text_config.vocab_size,
        num_train_available=counts.num_train_available,
        num_validation=counts.num_validation,
        num_test=counts.num_test,
        mean_tokens=counts.mean_tokens,
        longest_tokens=counts.longest_tokens,
        mean_target_tokens=counts.mean_target_tokens,
        num_truncated=counts.num_truncated,
        num_dropped=counts.num_dropped,
        num_duplicates=counts.num_duplicates,
        has_fused_attention=base.model.config._attn_implementation == "sdpa",
        reads_lines=unpadded.may_read_lines(base.model),
        stored_dtype=stored,
    )
