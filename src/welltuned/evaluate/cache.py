"""Keys and values of a block of rows, in buffers with room: a new token is written in place and nothing is copied.

Rows end together: the last position in use holds every row's newest token, and what lies before a row's first token is
masked. So a prompt that was read elsewhere can take an idle row's place at any time.
Shape letters: R rows, H key-value heads, L positions that there is room for, D size of a head, K rows that move.
"""

from torch import Tensor
from transformers import Cache, DynamicCache, PreTrainedModel
from transformers.cache_utils import CacheLayerMixin, DynamicLayer, DynamicSlidingWindowLayer

from welltuned.errors import InputError


class KeyValues(CacheLayerMixin):
    """One layer's keys and values, of which the first `length` positions are in use.

    Layers with a sliding window keep everything as well; the model's mask hides what lies outside of the window.
    """

    is_sliding = False

    def __init__(self) -> None:
        super().__init__()
        self.length = 0
        self.buffers_RHLD: tuple[Tensor, Tensor] | None = None

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Keep the states of prompts as they are: they are copied once, when their rows join a block."""
        self.buffers_RHLD = (key_states, value_states)
        self.is_initialized = True

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Write the new tokens' states behind the ones in use, and return all that are in use."""
        del args, kwargs
        start, self.length = self.length, self.length + key_states.shape[-2]
        if self.buffers_RHLD is None:
            self.lazy_initialization(key_states, value_states)
            return key_states, value_states
        keys, values = self.buffers_RHLD
        keys[:, :, start : self.length] = key_states
        values[:, :, start : self.length] = value_states
        return keys[:, :, : self.length], values[:, :, : self.length]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return the number of positions that the next tokens see, and the first of them."""
        return self.length + query_length, 0

    def get_seq_length(self) -> int:
        """Return the number of positions in use."""
        return self.length

    def get_max_length(self) -> int:
        """Return -1: the block makes room before it is needed."""
        return -1

    def resized(self, num_rows: int, length: int, room: int) -> "KeyValues":
        """Return an empty layer of the same heads with `length` positions in use; zeros, since 0 x NaN is not 0."""
        assert self.buffers_RHLD is not None
        layer = KeyValues()
        keys, values = (old.new_zeros(num_rows, old.shape[1], room, old.shape[3]) for old in self.buffers_RHLD)
        layer.lazy_initialization(keys, values)
        layer.length = length
        return layer

    def insert(self, other: "KeyValues", source_K: Tensor, target_K: Tensor) -> None:
        """Copy rows of another layer into rows of this one, so that they end together; what is too early is dropped."""
        assert self.buffers_RHLD is not None and other.buffers_RHLD is not None
        num = min(self.length, other.length)
        for mine, theirs in zip(self.buffers_RHLD, other.buffers_RHLD, strict=True):
            rows_KHLD = theirs[:, :, other.length - num : other.length].index_select(0, source_K)
            mine[:, :, self.length - num : self.length].index_copy_(0, target_K, rows_KHLD)


def empty_cache() -> Cache:
    """Return a cache whose layers are `KeyValues`, made as the model asks for them."""
    return Cache(layer_class_to_replicate=KeyValues)


def like(cache: Cache, num_rows: int, length: int, room: int) -> Cache:
    """Return an empty cache of another size with layers of the same heads."""
    return Cache(layers=[layer.resized(num_rows, length, room) for layer in layers(cache)])


def rearrange(cache: Cache, source_K: Tensor, target_K: Tensor, num_rows: int, length: int, room: int) -> None:
    """Move rows to other places of a cache of another size, one layer after another."""
    for index, layer in enumerate(layers(cache)):
        moved = layer.resized(num_rows, length, room)
        moved.insert(layer, source_K, target_K)
        cache.layers[index] = moved


def insert(cache: Cache, part: Cache, source_K: Tensor, target_K: Tensor) -> None:
    """Copy rows of a part into rows of a cache, all layers."""
    for layer, other in zip(layers(cache), layers(part), strict=True):
        layer.insert(other, source_K, target_K)


def layers(cache: Cache) -> list[KeyValues]:
    """Return the cache's layers, which all are `KeyValues`."""
    return [layer for layer in cache.layers if isinstance(layer, KeyValues)]


def check(network: PreTrainedModel) -> None:
    """Raise InputError where the model remembers more of earlier tokens than keys and values."""
    usual = {DynamicLayer, DynamicSlidingWindowLayer}
    if {type(layer) for layer in DynamicCache(config=network.config).layers} - usual:
        raise InputError(
            f"model.base: got {type(network).__name__}, which remembers earlier tokens in other ways than keys and "
            "values; expected a model of attention layers alone; choose another base, or a task that is not graded"
        )


def token_bytes(network: PreTrainedModel, itemsize: int) -> int:
    """Return the size of one token's keys and values over all layers."""
    settings = network.config.get_text_config()
    numbers = settings.to_dict()
    heads = numbers.get("num_key_value_heads") or settings.num_attention_heads
    head_size = numbers.get("head_dim") or settings.hidden_size // settings.num_attention_heads
    return 2 * settings.num_hidden_layers * heads * head_size * itemsize
