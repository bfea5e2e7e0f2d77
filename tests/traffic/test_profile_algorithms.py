"""Algorithms by the names of kernels, as cuDNN, cuBLAS, CUTLASS and PyTorch have them."""

import pytest

from cnnopt_jax import traffic

NONFUSED = [
  'void cudnn::winograd_nonfused::winogradForwardFilter4x4<float, float>',
  'void cudnn::winograd_nonfused::winogradForwardData4x4<float, float>',
  'volta_sgemm_128x64_nn',
  'void cudnn::winograd_nonfused::winogradForwardOutput4x4<float, float>',
]
WGRAD = [
  'void winogradWgradData4x4<float, float>',
  'void winogradWgradDelta4x4<float, float>',
  'volta_sgemm_128x64_nt',
  'void winogradWgradOutput4x4<float, float>',
]


def algorithms(**kernels):
  launches = {path: [traffic.LaunchProfile(name) for name in k] for path, k in kernels.items()}
  return traffic.profile_algorithms(launches)


@pytest.mark.parametrize(
  'kernels, algorithm',
  [
    (NONFUSED, 'winograd_nonfused'),
    (['volta_scudnn_winograd_128x128_ldg1_ldg4_relu_tile148t_nt_v1'], 'winograd_fused'),
    (['cudnn::winograd::generateWinogradTilesKernel', 'winograd_3x3_kernel'], 'winograd_fused'),
    (['fft2d_r2c_32x32', 'flip_filter', 'volta_gcgemm_32x32_nt', 'fft2d_c2r_32x32'], 'fft'),
    (['volta_cf32_gemm'], 'fft'),
    (['im2col4d_kernel', 'volta_sgemm_128x128_nn'], 'explicit_gemm'),
    (['explicit_convolve_sgemm'], 'explicit_gemm'),
    (['at::native::conv_depthwise2d_forward_kernel<float, int>'], 'depthwise'),
    (['conv2d_c1_k1_nhwc_kernel'], 'depthwise'),
    (['volta_scudnn_128x64_relu_interior_nn_v1'], 'implicit_gemm'),
    (['computeOffsetsKernel', 'implicit_convolve_sgemm', 'relu_elementwise'], 'implicit_gemm'),
    (['nchwToNhwcKernel', 'sm80_xmma_fprop_implicit_gemm_tf32f32', 'bias'], 'implicit_gemm'),
    (['cutlass_tensorop_s1688fprop_optimized_tf32_128x128'], 'implicit_gemm'),
    (['volta_sgemm_32x128_nn', 'splitKreduce_kernel'], 'implicit_gemm'),
    (['gemv2T_kernel_val'], 'implicit_gemm'),
    (['relu_elementwise', 'max_pool_forward_nchw', '[CUDA memset]'], None),
  ],
)
def test_names_of_a_forward_pass(kernels, algorithm):
  assert algorithms(conv=kernels) == ({('conv', 'forward'): algorithm} if algorithm else {})


def test_gradients_by_their_names_and_by_kinds():
  assert algorithms(conv=[*NONFUSED, 'dgrad2d_alg1_1', *WGRAD]) == {
    ('conv', 'forward'): 'winograd_nonfused',
    ('conv', 'data_gradient'): 'implicit_gemm',
    ('conv', 'weight_gradient'): 'winograd_nonfused',
  }
  kinds = {'conv:data_gradient': NONFUSED, 'conv:weight_gradient': ['wgrad_alg0_engine'], '': WGRAD}
  assert algorithms(**kinds) == {
    ('conv', 'data_gradient'): 'winograd_nonfused',
    ('conv', 'weight_gradient'): 'implicit_gemm',
  }
  depthwise = ['conv_depthwise2d_backward_kernel', 'conv_depthwise2d_grad_weight_kernel']
  assert set(algorithms(conv=depthwise)) == {('conv', 'data_gradient'), ('conv', 'weight_gradient')}


def test_two_algorithms_of_one_kind_are_refused():
  with pytest.raises(
    traffic.ProfileError, match='conv: .*implicit_gemm.* the kind behind the path'
  ):
    algorithms(conv=['volta_scudnn_128x64_relu', *NONFUSED])


def test_layers_are_matched_at_or_under_a_path():
  names = ['conv1/conv', 'conv10/conv', 'conv1/norm']
  assert traffic.match_layer('step/conv1', names) == ['conv1/conv', 'conv1/norm']
  assert traffic.match_layer('conv', names) == []
