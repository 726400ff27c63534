// relu_depthwise_conv2d and relu_separable_conv2d on the CPU, backward: the tasks.
//
//   g_f = the incoming gradient, or u_f^T times it with pointwise weights u, whose gradient is du_f = sum_{n,i,j} gradient z_f^T
//   dz[i,j]  = [a > 0] sum_f sum_{y,x} w_f[y,x] g_f[(i + p - d y)/s,(j + p - d x)/s]     (where the quotients are integers)
//   dw_f[y,x] = sum_{n,i,j} g_f[i,j] a[i s + d y - p,j s + d x - p]
//   dx = dz, or r dz with given statistics, or r (dz - mean(dz) - xhat mean(dz xhat)) with those of the batch
//
// A task is (chunk of samples' bands, panel of channels). For each band the input and, filter after filter, the incoming
// gradient are read once into tiles; the gradient's tile serves dw and dz. At stride 2, dz falls into four classes of
// pixels by the parity of row and column, each a dense correlation of g with the taps of its own parity.
// Deterministic: chunks follow from the sizes alone, each adds up in order, and their sums are added in order (in double).
#include "relu_depthwise_conv2d_backward.h"
#include "relu_depthwise_conv2d_correlation.h"

namespace ddarts::DDARTS_CPU_COPY {
namespace {

// Taps of one axis that reach pixels of one parity (stride 2; all pixels and taps at stride 1): tap `from`, from - step,
// ... `count` of them, read g at the pixel's own index (halved) plus offset, offset + 1 (times dilation at stride 1), ...
struct Axis {
  int64_t count, from, step, offset;
};

inline Axis axis_of(const Filter& f, int64_t stride, int64_t parity) {
  if (stride == 1) return {f.k, f.k - 1, 1, -f.pad};
  if (f.dilation == 2) return {parity == 0 ? f.k : 0, f.k - 1, 1, (f.pad - 2 * (f.k - 1)) / 2};
  const int64_t from = (f.k - 1 + f.pad + parity) % 2 == 0 ? f.k - 1 : f.k - 2;
  return {from / 2 + 1, from, 2, (parity + f.pad - from) / 2};
}

// Order of a filter's taps for the input gradient: class after class, within one in the order in which g is read.
inline int64_t tap_position(const Filter& f, int64_t stride, int64_t y, int64_t x) {
  int64_t first = 0;
  for (int64_t a = 0; a < stride; ++a)
    for (int64_t b = 0; b < stride; ++b) {
      const Axis rows = axis_of(f, stride, a), columns = axis_of(f, stride, b);
      if (rows.count == 0 || columns.count == 0) continue;
      const int64_t i = rows.from - y, j = columns.from - x;
      if (i >= 0 && j >= 0 && i % rows.step == 0 && j % columns.step == 0)
        return first + i / rows.step * columns.count + j / columns.step;
      first += rows.count * columns.count;
    }
  return 0;  // not reached: every tap belongs to one class
}

}  // namespace

template <typename T, typename A>
void Backward<T, A>::prepare(int64_t filter) {
  const size_t f = static_cast<size_t>(filter);
  const auto mirrored = [&](const Filter& g, int64_t i, int64_t j) { return tap_position(g, p.stride, i, j); };
  if (input_grad) fill_taps<A>(p, p.filters[f], weights[f], mirrored, table);
  if (!p.mixes()) return;
  fill_taps<A>(p, p.filters[f], weights[f], forward_position, forward_table);
  mixing[f] = mixing_table<A>(pointwise[f], true);
}

template <typename T, typename A>
template <typename O>
void Backward<T, A>::accumulate(int64_t t) {
  const int64_t chunk = t / p.panels, panel = t % p.panels;
  if (weights_grad) clear_partials(chunk, panel);
  const View<O> target = input_grad ? View<O>(*dz) : View<O>();
  for (int64_t item = chunk * items() / chunks(); item < (chunk + 1) * items() / chunks(); ++item)
    add_item(item, chunk, panel, target);
}

template <typename T, typename A>
void Backward<T, A>::clear_partials(int64_t chunk, int64_t panel) {
  const int64_t blocks = p.blocks_of(panel), first = panel * p.panel;
  std::fill_n(partial_weights + (chunk * p.blocks + first) * p.taps * L, blocks * p.taps * L, A(0));
  for (int64_t row = 0; row < (p.mixes() ? filters() * p.mixed_blocks * L : 0); ++row)
    std::fill_n(partial_mixing + ((chunk * filters() * p.mixed_blocks * L + row) * p.blocks + first) * L,
                blocks * L, A(0));
}

template <typename T, typename A>
template <typename O>
void Backward<T, A>::add_item(int64_t item, int64_t chunk, int64_t panel, const View<O>& target) {
  const int64_t band = item % p.bands, n = item / p.bands, first = p.begin(band), out_rows = p.end(band) - first;
  const int64_t blocks = p.blocks_of(panel), first_block = panel * p.panel;
  Vector<A>* a = scratch<A>(0, blocks * p.in_tile());
  load_activation<T, A>(p, x, norms, n, n / batch(), first_block, blocks, first * p.stride - p.pad,
                        out_rows * p.stride + 2 * p.pad, a);
  const int64_t rows = item_rows(band), columns = width(), dz_tile = p.band * p.stride * columns;
  Vector<A>* dz = scratch<A>(1, blocks * dz_tile);
  // As numbers: as an argument of a template the type loses that it may lie anywhere.
  if (input_grad && p.stride == 2) std::fill_n(reinterpret_cast<A*>(dz), blocks * dz_tile * L, A(0));
  for (size_t f = 0; f < grads.size(); ++f) {
    const Filter& filter = p.filters[f];
    const int64_t skip = p.pad - filter.pad, top = first * p.stride;
    const Gradient g = gradient_of(f, n, band, chunk, panel, a);
    for (int64_t b = 0; b < blocks; ++b) {
      if (weights_grad) {
        A* dw = partial_weights + ((chunk * p.blocks + first_block + b) * p.taps + filter.first) * L;
        select_weight_gradient<A>(filter.k, filter.dilation, p.stride)(
            {g.pixels.data + b * g.pixels.block, g.pixels.row, g.pixels.pixel,
             a + b * p.in_tile() + skip * p.in_columns + skip, p.in_columns, out_rows, p.out_w, filter.pad - top,
             p.h + filter.pad - top, !g.tile && b == 0, reinterpret_cast<Vector<A>*>(dw)});
      }
      if (input_grad) add_filter(filter, first_block + b, b, g, dz + b * dz_tile, columns, rows, f > 0 || p.stride == 2);
    }
  }
  for (int64_t b = 0; input_grad && b < blocks; ++b)
    for (int64_t r = 0; r < rows; ++r) {
      double* sums = partial_sums.empty() ? nullptr : partial_sums.data() + (item * p.blocks + first_block + b) * 2 * L;
      const Vector<A>* tile = a + b * p.in_tile() + (p.pad + r) * p.in_columns + p.pad;
      finish_row(tile, dz + b * dz_tile + r * columns, sums, target.template image<A>(n, first_block + b),
                 first * p.stride + r, b == 0);
    }
}

template <typename T, typename A>
typename Backward<T, A>::Gradient Backward<T, A>::gradient_of(size_t f, int64_t n, int64_t band, int64_t chunk, int64_t panel, const Vector<A>* a) {
  const Strides& s = grads[f].grad.strides;
  const int64_t pad = p.filters[f].pad, first = p.begin(band), out_rows = p.end(band) - first;
  const int64_t blocks = p.blocks_of(panel), first_block = panel * p.panel;
  if (!p.mixes() && p.stride == 1 && in_blocks<T, A>(s, p.c, p.out_w)) {  // where it is: nothing to load beforehand
    const A* data = reinterpret_cast<const A*>(grads[f].grad.data) + n * s.n + first * s.h + first_block * L;
    return {{data, L, s.h, s.w}, first, p.out_h - first, false};
  }
  const int64_t columns = p.out_columns + 2 * pad, tile = (p.band + 2 * pad) * columns;
  Vector<A>* g = scratch<A>(2, blocks * tile);
  if (p.mixes()) {
    unmix(f, n, band, chunk, panel, a, g, columns, tile);
  } else {
    load_tiles<Prologue::none, T, A>(grads[f].grad, n, first_block, blocks, first - pad, out_rows + 2 * pad,
                                     {g, tile, columns, pad}, nullptr);
  }
  const A* data = reinterpret_cast<const A*>(g + pad * columns + pad);
  return {{data, tile * L, columns * L, L}, std::min(pad, first), std::min(out_rows + pad, p.out_h - first), true};
}

template <typename T, typename A>
void Backward<T, A>::unmix(size_t f, int64_t n, int64_t band, int64_t chunk, int64_t panel, const Vector<A>* a, Vector<A>* g,
             int64_t g_columns, int64_t g_tile) {
  const Filter& filter = p.filters[f];
  const int64_t first = p.begin(band), out_rows = p.end(band) - first, blocks = p.blocks_of(panel), pad = filter.pad;
  const int64_t low = std::max<int64_t>(first - pad, 0), high = std::min(first + out_rows + pad, p.out_h);
  for (int64_t b = 0; b < blocks; ++b)
    for (int64_t r = 0; r < out_rows + 2 * pad; ++r) {
      Vector<A>* row = g + b * g_tile + r * g_columns;
      const bool outside = first - pad + r < low || first - pad + r >= high;
      clear<A>(row, outside ? g_columns : pad);
      clear<A>(row + pad + p.out_columns, pad);
    }
  const Pixels<const A> grad = gradient_rows(f, n, low, high);
  const Vector<A>* taps = reinterpret_cast<const Vector<A>*>(mixing[f].data()) + panel * p.panel * p.mixed_blocks * L;
  mix<A>(grad, p.mixed_blocks, taps,
         {reinterpret_cast<A*>(g + (low - first + pad) * g_columns + pad), g_tile * L, g_columns * L, L}, blocks,
         high - low, p.out_columns);
  if (!weights_grad) return;
  const int64_t together = rows_together(p), size = together * p.out_columns;
  const Pixels<A> z{reinterpret_cast<A*>(scratch<A>(4, blocks * size)), size * L, p.out_columns * L, L};
  Vector<A>* dw = reinterpret_cast<Vector<A>*>(
      partial_mixing + (chunk * filters() + static_cast<int64_t>(f)) * mixing_size()) +
      panel * p.panel;
  for (int64_t row = 0; row < out_rows; row += together) {
    const int64_t rows = std::min(together, out_rows - row), skip = p.pad - pad, top = (first + row) * p.stride;
    for (int64_t b = 0; b < blocks; ++b)
      select_correlate<A>(filter.k, filter.dilation, p.stride, true)(
          {reinterpret_cast<const A*>(a + b * p.in_tile() + (row * p.stride + skip) * p.in_columns + skip),
           p.in_columns * L, L,
           reinterpret_cast<const Vector<A>*>(forward_table.data()) + (panel * p.panel + b) * p.taps + filter.first,
           static_cast<int>(filter.k), rows, p.out_columns, z.data + b * z.block, z.row, z.pixel, false, pad - top,
           p.h + pad - top, p.w == p.out_columns});
    const Pixels<const A> from{grad.data + (first + row - low) * grad.row, grad.block, grad.row, grad.pixel};
    const Pixels<const A> values{z.data, z.block, z.row, z.pixel};
    if (blocks == 2) {
      mix_gradient<A, 2>(from, p.mixed_blocks, values, rows, p.out_columns, dw, p.blocks);
    } else {
      mix_gradient<A, 1>(from, p.mixed_blocks, values, rows, p.out_columns, dw, p.blocks);
    }
  }
}

template <typename T, typename A>
Pixels<const A> Backward<T, A>::gradient_rows(size_t f, int64_t n, int64_t low, int64_t high) const {
  const View<const T>& grad = grads[f].grad;
  const bool there = grads[f].terms.empty();
  if (there && in_blocks<T, A>(grad.strides, p.mixed, p.out_w)) {
    const A* data = reinterpret_cast<const A*>(grad.data);
    return {data + n * grad.strides.n + low * grad.strides.h, L, grad.strides.h, grad.strides.w};
  }
  const int64_t size = (high - low) * p.out_columns;
  Vector<A>* copy = scratch<A>(3, p.mixed_blocks * size);
  if (there) {
    load_tiles<Prologue::none, T, A>(grad, n, 0, p.mixed_blocks, low, high - low, {copy, size, p.out_columns, 0}, nullptr);
  } else {
    for (int64_t b = 0; b < p.mixed_blocks; ++b) load_terms(grads[f], n, b, low, high - low, copy + b * size);
  }
  return {reinterpret_cast<const A*>(copy), size * L, p.out_columns * L, L};
}

template <typename T, typename A>
void Backward<T, A>::load_terms(const Incoming<T, A>& from, int64_t n, int64_t block, int64_t first, int64_t rows, Vector<A>* to) const {
  const Image<const T> grad = from.grad.template image<A>(n, block), branch = from.branch.template image<A>(n, block);
  const Vector<A>* terms =
      reinterpret_cast<const Vector<A>*>(from.terms.data()) + (n / batch() * p.mixed_blocks + block) * 3;
  const Vector<A> by_gradient = terms[0], by_input = terms[1], constant = terms[2];
  Vector<A>* buffer = scratch<A>(5, p.out_columns);
  for (int64_t r = first; r < first + rows; ++r, to += p.out_columns) {
    const InRow<T, A> g(grad, r, to), x(branch, r, buffer);
    for (int64_t j = 0; j < p.out_w; ++j) to[j] = by_gradient * g.at(j) + (by_input * x.at(j) + constant);
    clear<A>(to + p.out_w, p.out_columns - p.out_w);
  }
}

template <typename T, typename A>
void Backward<T, A>::add_filter(const Filter& f, int64_t block, int64_t b, const Gradient& g, Vector<A>* dz, int64_t columns, int64_t rows,
                  bool add) const {
  const Vector<A>* taps = reinterpret_cast<const Vector<A>*>(table.data()) + block * p.taps + f.first;
  const int64_t s = p.stride;
  for (int64_t i = 0; i < s; ++i)
    for (int64_t j = 0; j < s; ++j) {
      const Axis y = axis_of(f, s, i), x = axis_of(f, s, j);
      if (y.count == 0 || x.count == 0) continue;
      const A* corner = g.pixels.data + b * g.pixels.block + y.offset * g.pixels.row + x.offset * g.pixels.pixel;
      const Correlation<A> job{corner, g.pixels.row, g.pixels.pixel, taps, static_cast<int>(y.count),
                               (rows - i + s - 1) / s, columns / s, reinterpret_cast<A*>(dz + i * columns + j),
                               s * columns * L, s * L, add, -g.above - y.offset, g.rows - y.offset,
                               s == 1 && p.w == p.out_columns};
      select_correlate<A>(x.count, s == 1 ? f.dilation : 1, 1, g.tile)(job);
      taps += y.count * x.count;
    }
}

template <typename T, typename A>
template <typename O>
void Backward<T, A>::finish_row(const Vector<A>* a, Vector<A>* dz, double* sums, const Image<O>& out, int64_t row, bool ahead) const {
  const Vector<A> zero = {};
  const OutRow<O, A> target(out, row, dz);
  if (ahead && target.buffer == nullptr)
    for (int64_t j = 0; j < p.w; ++j) __builtin_prefetch(target.data + out.row + j * target.pixel, 1, 3);
  if (adds) {
    const InRow<O, A> there({out.data, out.channel, out.row, out.column, out.height, out.width, out.lanes}, row,
                            scratch<A>(5, p.w));
    for (int64_t j = 0; j < p.w; ++j) target.set(j, there.at(j) + (a[j] <= zero ? zero : dz[j]));
    target.flush();
    return;
  }
  if (sums == nullptr) {
    for (int64_t j = 0; j < p.w; ++j) target.set(j, a[j] <= zero ? zero : dz[j]);
    target.flush();
    return;
  }
  Vector<A> sum = {}, product = {};
  for (int64_t j = 0; j < p.w; ++j) {
    const Vector<A> v = a[j] <= zero ? zero : dz[j];
    target.set(j, v);
    sum += v;
    product += v * a[j];
  }
  target.flush();
  for (int l = 0; l < L; ++l) {
    sums[l] += reinterpret_cast<const A*>(&sum)[l];
    sums[L + l] += reinterpret_cast<const A*>(&product)[l];
  }
}

using torch::headeronly::BFloat16;
using torch::headeronly::Half;
template struct Backward<double, double>;
template struct Backward<float, float>;
template struct Backward<Half, float>;
template struct Backward<BFloat16, float>;
template void Backward<double, double>::accumulate<double>(int64_t);
template void Backward<float, float>::accumulate<float>(int64_t);
template void Backward<Half, float>::accumulate<Half>(int64_t);
template void Backward<Half, float>::accumulate<float>(int64_t);
template void Backward<BFloat16, float>::accumulate<BFloat16>(int64_t);
template void Backward<BFloat16, float>::accumulate<float>(int64_t);

}  // namespace ddarts::DDARTS_CPU_COPY
