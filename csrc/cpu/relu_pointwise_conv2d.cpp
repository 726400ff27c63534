// relu_pointwise_conv2d on the CPU: out[n,c_f + o,i,j] = sum_c w_f[o,c] relu(x)[n,c,s i + f,s j + f], f = 0 ... weights - 1.
//
//   dx[n,c,s i + f,s j + f] = [x > 0] sum_o w_f[o,c] g[n,c_f + o,i,j], 0 elsewhere
//   dw_f[o,c] = sum_{n,i,j} g[n,c_f + o,i,j] relu(x)[n,c,s i + f,s j + f]
//
// A task is a sample, or a chunk of them: a few rows of relu(x) at a time become tiles in the first-level cache, from which
// the products with a matrix over channels are taken, exact ones (tf32 is for devices); relu(x) is never stored. Forward reads x
// and writes out, backward reads both and writes dx, once each. Deterministic: chunks follow from the sizes alone, each adds up in
// order, and they are added in order, in double.
#include "../common/channel_mixing.h"
#include "../common/parallel.h"
#include "../common/relu_pointwise_conv2d_check.h"

#include <algorithm>
#include <optional>
#include <vector>

namespace ddarts::DDARTS_CPU_COPY {

Tensor relu_pointwise_conv2d(const Tensor& x, std::vector<Tensor> weights, int64_t stride, bool tf32);
std::vector<Tensor> relu_pointwise_conv2d_backward(const Tensor& grad, const Tensor& x, std::vector<Tensor> weights,
                                                   int64_t stride, bool input_grad, bool weights_grad, bool tf32);

}  // namespace ddarts::DDARTS_CPU_COPY

#if defined(DDARTS_NARROW_COPY)
namespace ddarts::DDARTS_NARROW_COPY {

Tensor relu_pointwise_conv2d(const Tensor& x, std::vector<Tensor> weights, int64_t stride, bool tf32);
std::vector<Tensor> relu_pointwise_conv2d_backward(const Tensor& grad, const Tensor& x, std::vector<Tensor> weights,
                                                   int64_t stride, bool input_grad, bool weights_grad, bool tf32);

}  // namespace ddarts::DDARTS_NARROW_COPY
#endif

namespace ddarts::DDARTS_CPU_COPY {
namespace {

constexpr int64_t kTileValues = 4096;        // of relu(x): 16 KiB of float32
constexpr int64_t kRelaidValues = 16384;     // where memory is not blocks: the longer its rows, the faster they turn into them
constexpr int64_t kPartialValues = 1 << 17;  // of the gradient of a weight, which may cut the chunks to eight

// One weight with the pixels that it reads and the channels that it writes.
template <typename T, typename A>
struct Pointwise {
  static constexpr int L = kLanes<A>;
  View<const T> x, grad = {};
  View<T> out = {}, dx = {};
  int64_t samples, in_channels, out_channels, height, width;  // of the output
  Table<A> forward = {}, mirrored = {};                       // the weight as of mixing_table
  A* partial = nullptr;                                       // [chunks][out_count * L][in_count][L]

  int64_t in_count() const { return (in_channels + L - 1) / L; }
  int64_t out_count() const { return (out_channels + L - 1) / L; }
  int64_t columns() const { return (width + 7) / 8 * 8; }
  int64_t rows_together() const {
    return std::clamp<int64_t>((dense(x) ? kTileValues : kRelaidValues) / (in_count() * L * columns()), 1, height);
  }
  int64_t partial_size() const { return out_count() * L * in_count() * L; }
  int64_t chunks() const { return std::min(samples, std::clamp<int64_t>(kPartialValues / partial_size(), 8, 64)); }

  // Whether the memory is blocks already, from the first channel on.
  template <typename S>
  bool dense(const View<S>& view) const {
    return in_blocks<std::remove_const_t<S>, A>(view.strides, view.channels, view.width) && view.height == height &&
           view.width == width;
  }
  // Rows of such memory, and a tile for rows: pixel after pixel, as there.
  template <typename S>
  static auto rows_of(const View<S>& view, int64_t n, int64_t row) {
    using P = std::conditional_t<std::is_const_v<S>, const A, A>;
    return Pixels<P>{reinterpret_cast<P*>(view.data) + n * view.strides.n + row * view.strides.h, L, view.strides.h,
                     view.strides.w};
  }
  Pixels<A> tile(int slot, int64_t rows, int64_t blocks) const {
    A* data = reinterpret_cast<A*>(scratch<A>(slot, rows * columns() * blocks));
    return {data, L, columns() * blocks * L, blocks * L};
  }

  // Rows of relu(x), zeros past the last column and row.
  Pixels<const A> load(int64_t n, int64_t first, int64_t rows) const {
    const int64_t count = in_count(), size = rows_together() * columns();
    if (!dense(x)) {
      Vector<A>* blocks = scratch<A>(0, count * size);
      load_tiles<Prologue::relu, T, A>(x, n, 0, count, first, rows, {blocks, size, columns(), 0}, nullptr);
      return {reinterpret_cast<const A*>(blocks), size * L, columns() * L, L};
    }
    const Pixels<A> to = tile(0, rows_together(), count);
    const Pixels<const A> from = rows_of(x, n, first);
    Vector<A>* value = reinterpret_cast<Vector<A>*>(to.data);
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t j = 0; j < width; ++j) {
        const A* pixel = from.data + r * from.row + j * from.pixel;
        for (int64_t b = 0; b < count; ++b)
          *value++ = prologue_of<Prologue::relu, A>(*reinterpret_cast<const Vector<A>*>(pixel + b * L), nullptr);
      }
    return {to.data, to.block, to.row, to.pixel};
  }

  // Rows of the gradient, likewise.
  Pixels<const A> load_gradient(int64_t n, int64_t first, int64_t rows) const {
    if (dense(grad)) return rows_of(grad, n, first);
    const int64_t size = rows_together() * columns();
    Vector<A>* blocks = scratch<A>(2, out_count() * size);
    load_tiles<Prologue::none, T, A>(grad, n, 0, out_count(), first, rows, {blocks, size, columns(), 0}, nullptr);
    return {reinterpret_cast<const A*>(blocks), size * L, columns() * L, L};
  }

  template <typename P>
  static auto& at(const Pixels<P>& tile, int64_t b, int64_t r, int64_t j) {
    using V = std::conditional_t<std::is_const_v<P>, const Vector<A>, Vector<A>>;
    return *reinterpret_cast<V*>(tile.data + b * tile.block + r * tile.row + j * tile.pixel);
  }

  // The way out of rows that are not dense memory. Masked: zero where relu(x), a, is.
  template <bool Masked>
  void write(const View<T>& to, int64_t n, int64_t first, int64_t rows, const Pixels<A>& tile, int64_t blocks,
             const Pixels<const A>& a = {}) const {
    const Vector<A> zero = {};
    Vector<A>* line = scratch<A>(3, columns());
    for (int64_t b = 0; b < blocks; ++b) {
      const Image<T> image = to.template image<A>(n, b);
      for (int64_t r = 0; r < rows && first + r < to.height; ++r) {
        for (int64_t j = 0; j < width; ++j) {
          line[j] = at(tile, b, r, j);
          if constexpr (Masked) line[j] = at(a, b, r, j) <= zero ? zero : line[j];
        }
        write_row<T, A>(image, first + r, line);
      }
    }
  }

  void run_forward(int64_t n) const {
    const bool direct = dense(out);
    for (int64_t row = 0; row < height; row += rows_together()) {
      const int64_t rows = std::min(rows_together(), height - row);
      const Pixels<A> to = direct ? rows_of(out, n, row) : tile(1, rows_together(), out_count());
      mix<A>(load(n, row, rows), in_count(), reinterpret_cast<const Vector<A>*>(forward.data()), to, out_count(), rows,
             columns());
      if (!direct) write<false>(out, n, row, rows, to, out_count());
    }
  }

  void run_backward(int64_t chunk, bool input_grad, bool weights_grad) {
    Vector<A>* dw = reinterpret_cast<Vector<A>*>(partial + chunk * partial_size());
    std::fill_n(partial + chunk * partial_size(), partial_size(), A(0));
    for (int64_t n = chunk * samples / chunks(); n < (chunk + 1) * samples / chunks(); ++n)
      for (int64_t row = 0; row < height; row += rows_together()) {
        const int64_t rows = std::min(rows_together(), height - row);
        const Pixels<const A> a = load(n, row, rows), g = load_gradient(n, row, rows);
        for (int64_t b = 0; weights_grad && b < in_count(); b += 2) {
          const Pixels<const A> z{a.data + b * a.block, a.block, a.row, a.pixel};
          if (b + 1 < in_count()) {
            mix_gradient<A, 2>(g, out_count(), z, rows, columns(), dw + b, in_count());
          } else {
            mix_gradient<A, 1>(g, out_count(), z, rows, columns(), dw + b, in_count());
          }
        }
        if (input_grad) add_input_rows(n, row, rows, a, g);
      }
  }

  void add_input_rows(int64_t n, int64_t row, int64_t rows, const Pixels<const A>& a, const Pixels<const A>& g) const {
    const bool direct = dense(dx);
    const Pixels<A> to = direct ? rows_of(dx, n, row) : tile(1, rows_together(), in_count());
    mix<A>(g, out_count(), reinterpret_cast<const Vector<A>*>(mirrored.data()), to, in_count(), rows, columns());
    if (!direct) return write<true>(dx, n, row, rows, to, in_count(), a);
    const Vector<A> zero = {};
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t j = 0; j < width; ++j)
        for (int64_t b = 0; b < in_count(); ++b) {
          Vector<A>& masked = at(to, b, r, j);
          masked = at(a, b, r, j) <= zero ? zero : masked;
        }
  }

  // A row of the gradient of the weight: the chunks added in order.
  void gather(int64_t o, A* row) const {
    std::vector<double> sums(static_cast<size_t>(in_channels), 0.0);
    for (int64_t i = 0; i < chunks(); ++i) {
      const A* part = partial + i * partial_size() + o * in_count() * L;
      double* sum = sums.data();
#pragma omp simd
      for (int64_t c = 0; c < in_channels; ++c) sum[c] += static_cast<double>(part[c]);
    }
    std::copy(sums.begin(), sums.end(), row);
  }

  Tensor weight_gradient(const Tensor& like) const {
    Tensor result = layout::empty(like, {out_channels, in_channels, 1, 1}, like.scalar_type(), false);
    std::vector<A> values(static_cast<size_t>(out_channels * in_channels));
    constexpr int64_t kSums = 1 << 14;
    parallel_pieces(out_channels, 1 + kSums / (in_channels * chunks() + 1), [&](int64_t begin, int64_t end) {
      for (int64_t o = begin; o < end; ++o) gather(o, values.data() + o * in_channels);
    });
    with_dtype(result.scalar_type(), [&](auto tag) {
      using scalar_t = decltype(tag);
      store_row<scalar_t, A>(values.data(), static_cast<scalar_t*>(result.mutable_data_ptr()), result.numel());
    });
    return result;
  }
};

// Every stride-th pixel of a tensor, from (offset, offset) on.
template <typename T>
View<T> every(const Tensor& x, int64_t stride, int64_t offset) {
  View<T> view(x);
  view.data += offset * (view.strides.h + view.strides.w);
  view.height = (view.height - offset + stride - 1) / stride, view.width = (view.width - offset + stride - 1) / stride;
  view.strides.h *= stride, view.strides.w *= stride;
  return view;
}

// `count` channels of a tensor.
template <typename T>
View<T> channels_of(const Tensor& x, int64_t first, int64_t count) {
  View<T> view(x);
  view.data += first * view.strides.c, view.channels = count;
  return view;
}

// A job a weight. out, dx: where they are wanted.
template <typename T>
std::vector<Pointwise<T, accumulate_t<T>>> jobs_of(const Tensor& x, const std::vector<Tensor>& weights, int64_t stride,
                                                   const Tensor& image, bool forward, const std::optional<Tensor>& dx) {
  using A = accumulate_t<T>;
  std::vector<Pointwise<T, A>> jobs;
  int64_t first = 0;
  for (size_t f = 0; f < weights.size(); ++f) {
    const Tensor weight = layout::as(weights[f], false);
    const int64_t offset = static_cast<int64_t>(f), count = weight.size(0);
    Pointwise<T, A> job{every<const T>(x, stride, offset), {}, {}, {}, x.size(0), x.size(1), count, image.size(2), image.size(3)};
    if (forward) {
      job.out = channels_of<T>(image, first, count);
      job.forward = mixing_table<A>(weight, false);
    } else {
      job.grad = channels_of<const T>(image, first, count);
      if (dx) job.dx = every<T>(*dx, stride, offset), job.mirrored = mixing_table<A>(weight, true);
    }
    jobs.push_back(std::move(job));
    first += count;
  }
  return jobs;
}

#if defined(DDARTS_NARROW_COPY)
// Whether the input or every output fills no more than half a block.
bool narrow(const Tensor& x, const std::vector<Tensor>& weights) {
  const auto idle = [&](const Tensor& weight) { return half_idle(x, weight.size(0)); };
  return half_idle(x, x.size(1)) || std::all_of(weights.begin(), weights.end(), idle);
}
#endif

}  // namespace

Tensor relu_pointwise_conv2d(const Tensor& x, std::vector<Tensor> weights, int64_t stride, [[maybe_unused]] bool tf32) {
  check_relu_pointwise_conv2d(x, weights, stride);
#if defined(DDARTS_NARROW_COPY)
  if (narrow(x, weights)) return DDARTS_NARROW_COPY::relu_pointwise_conv2d(x, weights, stride, tf32);
#endif
  int64_t channels = 0;
  for (const Tensor& weight : weights) channels += weight.size(0);
  Tensor out = layout::in_layout_of(x, channels, (x.size(2) + stride - 1) / stride, (x.size(3) + stride - 1) / stride,
                                  x.scalar_type());
  with_dtype(x.scalar_type(), [&](auto tag) {
    using scalar_t = decltype(tag);
    auto jobs = jobs_of<scalar_t>(x, weights, stride, out, true, std::nullopt);
    for_tasks(jobs, [&](const auto&) { return x.size(0); }, [](const auto& job, int64_t n) { job.run_forward(n); });
  });
  return out;
}

// dx and the gradients of the weights, as far as they are wanted.
std::vector<Tensor> relu_pointwise_conv2d_backward(const Tensor& grad, const Tensor& x, std::vector<Tensor> weights,
                                                   int64_t stride, bool input_grad, bool weights_grad, [[maybe_unused]] bool tf32) {
  check_relu_pointwise_conv2d_backward(grad, x, weights, stride);
#if defined(DDARTS_NARROW_COPY)
  if (narrow(x, weights))
    return DDARTS_NARROW_COPY::relu_pointwise_conv2d_backward(grad, x, weights, stride, input_grad, weights_grad, tf32);
#endif
  std::vector<Tensor> found;
  std::optional<Tensor> dx;
  if (input_grad) {
    dx = layout::in_layout_of(x, x.size(1), x.size(2), x.size(3), x.scalar_type());
    if (stride > 1) torch::stable::zero_(*dx);
    found.push_back(*dx);
  }
  with_dtype(x.scalar_type(), [&](auto tag) {
    using scalar_t = decltype(tag);
    auto jobs = jobs_of<scalar_t>(x, weights, stride, grad, false, dx);
    int64_t partial = 0;
    for (const auto& job : jobs) partial += job.chunks() * job.partial_size();
    using A = accumulate_t<scalar_t>;
    A* partials = reinterpret_cast<A*>(scratch<A>(6, partial / kLanes<A>));
    for (auto& job : jobs) job.partial = partials, partials += job.chunks() * job.partial_size();
    for_tasks(jobs, [](const auto& job) { return job.chunks(); },
              [&](auto& job, int64_t chunk) { job.run_backward(chunk, input_grad, weights_grad); });
    for (size_t f = 0; weights_grad && f < weights.size(); ++f) found.push_back(jobs[f].weight_gradient(weights[f]));
  });
  return found;
}

}  // namespace ddarts::DDARTS_CPU_COPY

DDARTS_CPU_KERNELS(m) {
  m.impl("relu_pointwise_conv2d", TORCH_BOX(&ddarts::DDARTS_CPU_COPY::relu_pointwise_conv2d));
  m.impl("relu_pointwise_conv2d_backward", TORCH_BOX(&ddarts::DDARTS_CPU_COPY::relu_pointwise_conv2d_backward));
}
