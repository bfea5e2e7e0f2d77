"""What the walk over a jaxpr knows of JAX's primitives, by name.

A primitive is a convolution or matrix product (`compute.py`), holds a program of its own (`CALLS`
and the loops and branches of `walk.py`), or stands here in `FREE`: it sums no products. Anything
else is an error, because a cost left out looks the same as a cost of zero.

The lists are the union of what JAX 0.10.2 and 0.12 define. Left out on purpose: fft
and the primitives of `jax.lax.linalg`, which multiply and add; kernels and foreign calls
(pallas_call, ffi_call, pure_callback), whose work cannot be seen; products other than the two in
`compute.py` (ragged_dot_general, scaled_dot, fused attention, sparse); programs over several
devices (shard_map and collectives), whose shapes are those of one shard; and mutable references,
through which a value's origin cannot be followed.
"""

_ARITHMETIC = """
  abs add add_any atan2 cbrt ceil clamp complex conj div exp exp2 expm1 floor imag integer_pow
  is_finite log log1p log2 logistic max min mul mulhi neg nextafter one_minus_square polynomial pow
  real reciprocal rem round rsqrt sign sqrt square sub
"""

_SPECIAL_FUNCTIONS = """
  acos acosh asin asinh atan atanh bessel_i0e bessel_i1e cos cosh digamma erf erf_inv erfc igamma
  igamma_grad_a igammac lgamma polygamma regularized_incomplete_beta sin sinh tan tanh zeta
"""

_BITS_AND_COMPARISONS = """
  and clz eq eq_to ge gt le le_to lt lt_to ne not or population_count select_n shift_left
  shift_right_arithmetic shift_right_logical xor
"""

_REDUCTIONS = """
  argmax argmin cumlogsumexp cummax cummin cumprod cumsum reduce reduce_and reduce_max reduce_min
  reduce_or reduce_prod reduce_sum reduce_window reduce_window_max reduce_window_min
  reduce_window_sum reduce_xor select_and_gather_add select_and_scatter select_and_scatter_add
"""

_MOVES = """
  bitcast_convert_type broadcast_in_dim broadcast_to concatenate convert_element_type copy
  dynamic_slice dynamic_update_slice empty empty2 gather iota lu_pivots_to_permutation pad
  reduce_precision reshape rev scatter scatter-add scatter-max scatter-min scatter-mul scatter-sub
  slice split squeeze stack tile transpose unstack zeros_like
"""

_ORDER = 'approx_top_k sort top_k'

_RANDOM = """
  iota_2x32_shape philox2x32 philox4x32 random_bits random_clone random_fold_in random_gamma
  random_seed random_split random_unwrap random_wrap rng_bit_generator rng_uniform threefry2x32
  threefry4x32
"""

_MARKS = """
  after_all check create_token dce_sink debug_callback debug_print device_put from_edtype
  inspect_sharding layout_constraint name optimization_barrier platform_index pvary relayout reshard
  sharding_constraint stage stop_gradient tie to_edtype xla_metadata_value
"""

# Interpolations of `cnnopt_jax.kernels`: means of up to four neighbours.
_INTERPOLATIONS = 'cnnopt_call cnnopt_linear'

# Primitives without a multiply-accumulate. A product that no sum follows is not one.
FREE = frozenset(
  ' '.join(
    (
      _ARITHMETIC,
      _SPECIAL_FUNCTIONS,
      _BITS_AND_COMPARISONS,
      _REDUCTIONS,
      _MOVES,
      _ORDER,
      _RANDOM,
      _MARKS,
      _INTERPOLATIONS,
    )
  ).split()
)

# Primitives that run one program on all their operands, in order, with the name of the parameter
# that holds it. Of a function with a derivative of its own this is the function.
CALLS = {
  'call': 'call_jaxpr',
  'closed_call': 'call_jaxpr',
  'composite': 'jaxpr',
  'custom_jvp_call': 'call_jaxpr',
  'custom_vjp_call': 'call_jaxpr',
  'custom_vmap_call': 'call',
  'jit': 'jaxpr',
  'remat2': 'jaxpr',
  'xla_metadata_call': 'jaxpr',
}
