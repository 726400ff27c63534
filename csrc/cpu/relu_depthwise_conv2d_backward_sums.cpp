// relu_depthwise_conv2d and relu_separable_conv2d on the CPU, backward: what is made of the tasks' sums, that is the gradient
// through the statistics of a norm and the gradients of the weights.
#include "relu_depthwise_conv2d_backward.h"

namespace ddarts::DDARTS_CPU_COPY {

template <typename T, typename A>
void Backward<T, A>::average(int64_t g) {
  const double values = static_cast<double>(batch() * p.h * p.w);
  const int64_t row = p.blocks * 2 * L;
  for (int64_t i = 0; i < row; ++i) {
    double sum = 0;
    for (int64_t item = g * batch() * p.bands; item < (g + 1) * batch() * p.bands; ++item)
      sum += partial_sums[static_cast<size_t>(item * row + i)];
    means[static_cast<size_t>(g * row + i)] = static_cast<A>(sum / values);
  }
}

template <typename T, typename A>
void Backward<T, A>::norm_terms(A* a, A* s, A* d, int64_t count, int64_t index) const {
  for (int64_t i = 0; i < groups * p.c; ++i) {
    const int64_t g = i / p.c, c = i % p.c, block = c / L, lane = c % L, at = (g * count + index) * p.c + c;
    const A* norm = norms.data() + (g * p.blocks + block) * 2 * L + lane;
    const A* m = means.data() + (g * p.blocks + block) * 2 * L + lane;
    const A scale = norm[L];
    a[at] = scale, s[at] = -scale * scale * m[L], d[at] = -s[at] * norm[0] - scale * m[0];
  }
}

template <typename T, typename A>
template <typename O>
void Backward<T, A>::normalize(int64_t t) {
  Vector<A>* row = scratch<A>(0, p.w);
  Vector<A>* grad = scratch<A>(1, p.w);
  const int64_t n = t / p.blocks, block = t % p.blocks;
  const Image<const T> image = x.template image<A>(n, block);
  const Image<const O> in = View<const O>(*dz).template image<A>(n, block);
  const Image<T> out = View<T>(*dx).template image<A>(n, block);
  const Vector<A>* norm = norm_of<A>(p, norms, n / batch(), block);
  const Vector<A>* m = reinterpret_cast<const Vector<A>*>(means.data()) + (n / batch() * p.blocks + block) * 2;
  const Vector<A> centre = norm[0], scale = norm[1], slope = scale * scale * m[1], rest = scale * m[0];
  for (int64_t r = 0; r < p.h; ++r) {
    const InRow<T, A> values(image, r, row);
    const InRow<O, A> gradient(in, r, grad);
    const OutRow<T, A> target(out, r, grad);
    for (int64_t j = 0; j < p.w; ++j) target.set(j, scale * gradient.at(j) - slope * (values.at(j) - centre) - rest);
    target.flush();
  }
}

template <typename T, typename A>
void Backward<T, A>::total(const A* partial, int64_t size, int64_t at, int64_t count, A* out) const {
  std::vector<double> sums(static_cast<size_t>(count), 0.0);
  for (int64_t i = 0; i < chunks(); ++i) {
    const A* part = partial + i * size + at;
    double* sum = sums.data();
#pragma omp simd
    for (int64_t j = 0; j < count; ++j) sum[j] += static_cast<double>(part[j]);
  }
  std::copy(sums.begin(), sums.end(), out);
}

template <typename T, typename A>
void Backward<T, A>::gather(int64_t i) {
  Tensor& target = dweights[static_cast<size_t>(i)];
  std::vector<A> values(static_cast<size_t>(target.numel()));
  i < filters() ? gather_depthwise(p.filters[static_cast<size_t>(i)], values.data())
                : gather_pointwise(i - filters(), values.data());
  with_dtype(target.scalar_type(), [&](auto tag) {
    using scalar_t = decltype(tag);
    store_row<scalar_t, A>(values.data(), static_cast<scalar_t*>(target.mutable_data_ptr()), target.numel());
  });
}

template <typename T, typename A>
void Backward<T, A>::gather_depthwise(const Filter& filter, A* values) const {
  const int64_t taps = filter.k * filter.k;
  std::vector<A> block(static_cast<size_t>(taps * L));
  for (int64_t b = 0; b < p.blocks; ++b) {
    total(partial_weights, p.blocks * p.taps * L, (b * p.taps + filter.first) * L, taps * L, block.data());
    for (int64_t c = b * L; c < std::min(p.c, (b + 1) * L); ++c)
      for (int64_t t = 0; t < taps; ++t) values[c * taps + t] = block[static_cast<size_t>(t * L + c % L)];
  }
}

template <typename T, typename A>
void Backward<T, A>::gather_pointwise(int64_t f, A* values) const {
  const int64_t size = filters() * mixing_size(), width = p.blocks * L, rows = width == p.c ? 1 : p.mixed;
  for (int64_t o = 0; o < rows; ++o)
    total(partial_mixing, size, f * mixing_size() + o * width, p.mixed * p.c / rows, values + o * p.c);
}

using torch::headeronly::BFloat16;
using torch::headeronly::Half;
template struct Backward<double, double>;
template struct Backward<float, float>;
template struct Backward<Half, float>;
template struct Backward<BFloat16, float>;
template void Backward<double, double>::normalize<double>(int64_t);
template void Backward<float, float>::normalize<float>(int64_t);
template void Backward<Half, float>::normalize<Half>(int64_t);
template void Backward<Half, float>::normalize<float>(int64_t);
template void Backward<BFloat16, float>::normalize<BFloat16>(int64_t);
template void Backward<BFloat16, float>::normalize<float>(int64_t);

}  // namespace ddarts::DDARTS_CPU_COPY
