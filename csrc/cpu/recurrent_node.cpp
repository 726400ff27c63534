// recurrent_node on the CPU: ddarts_ext/ops/recurrent_node.py has the equations. A row (one sample) is read once for every
// predecessor; activations are recomputed in the backward, which costs less than keeping them. Rows are independent, and
// sums over them are joined in order of blocks whose size follows from the shape: nothing depends on the number of threads.
#include "../common/parallel.h"
#include "../common/simd.h"
#include "../common/recurrent_node_check.h"

#include <cmath>
#include <vector>

namespace ddarts {
namespace {

// sigmoid(x) and tanh(x) from one exponential, to a few roundings relative to the value, for any x.
template <typename A>
struct Squashed {
  A sigmoid, tanh;
};

// e = exp(-|x|) and 1 - e, neither by a difference of near values: -|x| = n ln 2 + r, |r| <= ln 2 / 2, and exp(r) - 1 by
// its series to the seventh power, whose rest is below 2^-26 of it.
DDARTS_INLINE inline Squashed<float> squashed(float x) {
  float y = -std::fabs(x);
  y = y < -87.0f ? -87.0f : y;  // exp(-87) is still a normal number; NaN stays NaN
  constexpr float kShift = 12582912.0f;  // 1.5 * 2^23: adding it rounds to a whole number, found in the low bits
  const float shifted = y * 1.44269504f + kShift, n = shifted - kShift;
  const float r = (y - n * 0.693145751953125f) - n * 1.428606820309417e-6f;
  const float p =
      r * (1.0f + r * (1 / 2.0f + r * (1 / 6.0f + r * (1 / 24.0f + r * (1 / 120.0f + r * (1 / 720.0f + r * (1 / 5040.0f)))))));
  uint32_t bits;
  std::memcpy(&bits, &shifted, 4);
  bits = (bits << 23) + 0x3F800000u;  // 2^n
  float scale;
  std::memcpy(&scale, &bits, 4);
  const float e = scale * p + scale, rest = (1.0f - scale) - scale * p;
  const float tanh = rest * (1.0f + e) / (1.0f + e * e);
  return {(x < 0.0f ? e : 1.0f) / (1.0f + e), x < 0.0f ? -tanh : tanh};
}
DDARTS_INLINE inline Squashed<double> squashed(double x) {
  const double e = std::exp(-std::fabs(x));
  return {(x < 0.0 ? e : 1.0) / (1.0 + e), std::tanh(x)};
}

constexpr int kTanh = 1, kRelu = 2, kSigmoid = 4, kIdentity = 8;

// A predecessor's weights, 0 where an activation is not used, and their sum.
template <typename A>
struct Weights {
  A tanh, relu, sigmoid, identity, total;
};

// sum_f w_f f(h), over the activations of the mask alone: 0 times infinity must not come in.
template <int kMask, typename A>
DDARTS_INLINE inline A mixed(const Weights<A>& w, A h, const Squashed<A>& q) {
  A value = A(0);
  if constexpr ((kMask & kTanh) != 0) value += w.tanh * q.tanh;
  if constexpr ((kMask & kRelu) != 0) value += w.relu * (h < A(0) ? A(0) : h);
  if constexpr ((kMask & kSigmoid) != 0) value += w.sigmoid * q.sigmoid;
  if constexpr ((kMask & kIdentity) != 0) value += w.identity * h;
  return value;
}

// Where a loop asks for one of the two alone, the compiler drops the other.
template <int kMask, typename A>
DDARTS_INLINE inline Squashed<A> squashed_if(A h) {
  if constexpr ((kMask & (kTanh | kSigmoid)) != 0) return squashed(h);
  else return {A(0), A(0)};
}

template <int kMask, typename A>
void add_row(const A* __restrict__ s, const A* __restrict__ c, const A* __restrict__ h, const Weights<A> w,
             A* __restrict__ out, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    const A x = h[i], carried = w.total * s[i], g = squashed(c[i]).sigmoid;
    const Squashed<A> q = squashed_if<kMask>(x);
    out[i] += carried + g * (mixed<kMask>(w, x, q) - carried);
  }
}

// Sums of a row are kept by lane: a sum of floats in one place would be added up in order, one value at a time.
constexpr int64_t kLanes = 16;

// sums: 4, of grad (s + g (f(h) - s)).
template <int kMask, typename A>
void differentiate_row(const A* __restrict__ grad, const A* __restrict__ s, const A* __restrict__ c,
                       const A* __restrict__ h, const Weights<A> w, A* __restrict__ ds, A* __restrict__ dc,
                       A* __restrict__ dh, double* sums, int64_t n) {
  A of_tanh[kLanes] = {}, of_relu[kLanes] = {}, of_sigmoid[kLanes] = {}, of_identity[kLanes] = {};
  const auto differentiate = [&](int64_t i, int64_t lane) DDARTS_INLINE {
    const A g = squashed(c[i]).sigmoid, x = h[i], sent = grad[i];
    const Squashed<A> q = squashed_if<kMask>(x);
    A slope = A(0);
    const A kept = sent * (A(1) - g) * s[i], passed = sent * g;
    if constexpr ((kMask & kTanh) != 0) {
      slope += w.tanh * (A(1) - q.tanh * q.tanh);
      of_tanh[lane] += kept + passed * q.tanh;
    }
    if constexpr ((kMask & kRelu) != 0) {
      slope += x > A(0) ? w.relu : A(0);
      of_relu[lane] += kept + passed * (x < A(0) ? A(0) : x);
    }
    if constexpr ((kMask & kSigmoid) != 0) {
      slope += w.sigmoid * (q.sigmoid * (A(1) - q.sigmoid));
      of_sigmoid[lane] += kept + passed * q.sigmoid;
    }
    if constexpr ((kMask & kIdentity) != 0) {
      slope += w.identity;
      of_identity[lane] += kept + passed * x;
    }
    ds[i] = sent * w.total * (A(1) - g);
    dc[i] = passed * (A(1) - g) * (mixed<kMask>(w, x, q) - w.total * s[i]);
    dh[i] = passed * slope;
  };
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes)
    for (int64_t lane = 0; lane < kLanes; ++lane) differentiate(i + lane, lane);
  for (; i < n; ++i) differentiate(i, i % kLanes);
  for (int64_t lane = 0; lane < kLanes; ++lane) {
    sums[0] += static_cast<double>(of_tanh[lane]), sums[1] += static_cast<double>(of_relu[lane]);
    sums[2] += static_cast<double>(of_sigmoid[lane]), sums[3] += static_cast<double>(of_identity[lane]);
  }
}

// f(integral constant) of the mask, 1 to 15.
template <int kMask = 15, typename F>
void with_mask(int mask, const F& f) {
  if (mask == kMask) return f(std::integral_constant<int, kMask>());
  if constexpr (kMask > 1) with_mask<kMask - 1>(mask, f);
}

int mask_of(const std::vector<int64_t>& activations) {
  int mask = 0;
  for (const int64_t activation : activations) mask |= 1 << activation;
  return mask;
}

template <typename A>
std::vector<Weights<A>> weights_of(const Tensor& given, const std::vector<int64_t>& activations) {
  const Tensor dense_weights = dense(given, kScalarType<A>);
  const A* from = data<A>(dense_weights);
  std::vector<Weights<A>> rows(given.size(0));
  for (Weights<A>& row : rows) {
    A at[4] = {};
    row.total = A(0);
    for (const int64_t activation : activations) row.total += at[activation] = *from++;
    row.tanh = at[0], row.relu = at[1], row.sigmoid = at[2], row.identity = at[3];
  }
  return rows;
}

// Rows of a list of tensors, read as values of the type of sums: in place where they have it.
template <typename T, typename A>
struct Rows {
  std::vector<Tensor> held;
  std::vector<const T*> first;
  std::vector<int64_t> stride;
  explicit Rows(const std::vector<Tensor>& tensors) {
    for (const Tensor& x : tensors) {
      held.push_back(dense_rows(x));
      first.push_back(data<T>(held.back()));
      stride.push_back(held.back().stride(0));
    }
  }
  const A* read(size_t p, int64_t row, A* buffer, int64_t n) const {
    const T* from = first[p] + row * stride[p];
    if constexpr (std::is_same_v<T, A>) return from;
    else return load_row(from, buffer, n), buffer;
  }
};

int64_t rows_per_block(int64_t hidden) { return std::max<int64_t>(1, 2048 / std::max<int64_t>(1, hidden)); }

template <typename T>
void forward(const std::vector<Tensor>& states, const std::vector<Tensor>& gates, const Tensor& given,
             const std::vector<int64_t>& activations, T* out) {
  using A = accumulate_t<T>;
  const int64_t batch = states[0].size(0), hidden = states[0].size(1);
  const std::vector<Weights<A>> weights = weights_of<A>(given, activations);
  const Rows<T, A> s(states), c(gates);
  with_mask(mask_of(activations), [&](auto mask) {
    parallel_pieces(batch, rows_per_block(hidden), [&](int64_t begin, int64_t end) {
      std::vector<A> sum(hidden), carried(hidden), both(2 * hidden);
      for (int64_t b = begin; b < end; ++b) {
        std::fill(sum.begin(), sum.end(), A(0));
        for (size_t p = 0; p < states.size(); ++p) {
          const A* gate = c.read(p, b, both.data(), 2 * hidden);
          add_row<mask>(s.read(p, b, carried.data(), hidden), gate, gate + hidden, weights[p], sum.data(), hidden);
        }
        store_row(sum.data(), out + b * hidden, hidden);
      }
    });
  });
}

template <typename T>
void backward(const T* grad, const std::vector<Tensor>& states, const std::vector<Tensor>& gates, const Tensor& given,
              const std::vector<int64_t>& activations, T* of_states, T* of_gates, accumulate_t<T>* of_weights) {
  using A = accumulate_t<T>;
  const int64_t batch = states[0].size(0), hidden = states[0].size(1), count = given.size(0), block = rows_per_block(hidden);
  const int64_t blocks = (batch + block - 1) / block;
  const std::vector<Weights<A>> weights = weights_of<A>(given, activations);
  const Rows<T, A> s(states), c(gates);
  std::vector<double> partial(blocks * count * kRecurrentActivations, 0.0);
  with_mask(mask_of(activations), [&](auto mask) {
    parallel_pieces(blocks, 1, [&](int64_t first, int64_t last) {
      std::vector<A> sent(hidden), carried(hidden), both(2 * hidden), ds(hidden), dboth(2 * hidden);
      for (int64_t b = first * block; b < std::min(batch, last * block); ++b) {
        load_row(grad + b * hidden, sent.data(), hidden);
        for (int64_t p = 0; p < count; ++p) {
          const A* gate = c.read(p, b, both.data(), 2 * hidden);
          differentiate_row<mask>(sent.data(), s.read(p, b, carried.data(), hidden), gate, gate + hidden, weights[p],
                                  ds.data(), dboth.data(), dboth.data() + hidden,
                                  partial.data() + (b / block * count + p) * kRecurrentActivations, hidden);
          const int64_t row = p * batch + b;
          store_row(ds.data(), of_states + row * hidden, hidden);
          store_row(dboth.data(), of_gates + row * 2 * hidden, 2 * hidden);
        }
      }
    });
  });
  for (int64_t p = 0; p < count; ++p) {
    for (const int64_t activation : activations) {
      double sum = 0;
      for (int64_t k = 0; k < blocks; ++k) sum += partial[(k * count + p) * kRecurrentActivations + activation];
      *of_weights++ = static_cast<A>(sum);
    }
  }
}

Tensor recurrent_node(std::vector<Tensor> states, std::vector<Tensor> gates, Tensor weights,
                      std::vector<int64_t> activations) {
  check_recurrent_node(states, gates, weights, activations);
  Tensor out = torch::stable::new_empty(states[0], {states[0].size(0), states[0].size(1)});
  if (out.numel() == 0) return out;
  with_dtype(out.scalar_type(), [&](auto tag) {
    forward(states, gates, weights, activations, mutable_data<decltype(tag)>(out));
  });
  return out;
}

std::tuple<Tensor, Tensor, Tensor> recurrent_node_backward(Tensor grad, std::vector<Tensor> states, std::vector<Tensor> gates,
                                                           Tensor weights, std::vector<int64_t> activations) {
  check_recurrent_node_backward(grad, states, gates, weights, activations);
  const int64_t count = weights.size(0), batch = grad.size(0), hidden = grad.size(1);
  const Tensor sent = torch::stable::contiguous(grad);
  Tensor of_states = torch::stable::new_empty(grad, {count, batch, hidden});
  Tensor of_gates = torch::stable::new_empty(grad, {count, batch, 2 * hidden});
  Tensor of_weights = torch::stable::new_empty(grad, {count, weights.size(1)}, accumulate_dtype(grad));
  if (grad.numel() == 0) {
    of_weights = torch::stable::zero_(of_weights);
  } else {
    with_dtype(grad.scalar_type(), [&](auto tag) {
      using T = decltype(tag);
      backward<T>(data<T>(sent), states, gates, weights, activations, mutable_data<T>(of_states), mutable_data<T>(of_gates),
                  mutable_data<accumulate_t<T>>(of_weights));
    });
  }
  if (of_weights.scalar_type() != weights.scalar_type()) of_weights = torch::stable::to(of_weights, weights.scalar_type());
  return {of_states, of_gates, of_weights};
}

}  // namespace
}  // namespace ddarts

DDARTS_CPU_KERNELS(m) {
  m.impl("recurrent_node", TORCH_BOX(&ddarts::recurrent_node));
  m.impl("recurrent_node_backward", TORCH_BOX(&ddarts::recurrent_node_backward));
}
