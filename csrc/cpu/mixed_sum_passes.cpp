// The passes of mixed_sum over the blocks of its branches, see mixed_sum.cpp.
#include "mixed_sum_passes.h"

#include "../common/exact_moments.h"
#include "mixed_sum_tiles.h"

#include <array>
#include <cmath>
#include <iterator>

namespace ddarts::DDARTS_CPU_COPY {
namespace {

template <typename T, typename A>
std::array<const T*, kTogether> pointers(const Node<A>& node, const Run& run, int64_t offset) {
  std::array<const T*, kTogether> p{};
  for (int n = 0; n < run.count; ++n) p[n] = data<T>(node.branches[run.index[n]]) + offset;
  return p;
}

// Mean and rstd of the batch of branch k, from the moments of its blocks: sum n_i m_i / N, then sum M_i + n_i (m_i - m)^2.
template <typename A>
void merge_moments(const Geometry& geo, int64_t g, const A* means, const A* squares, double eps, A* mean, A* rstd) {
  const int64_t lanes = geo.lanes(), values = geo.values();
  std::vector<double> centre(geo.channels, 0.0), spread(geo.channels, 0.0);
  std::vector<double> lane_sum(kLanes);
  for (int pass = 0; pass < 2; ++pass) {
    std::vector<double>& total = pass == 0 ? centre : spread;
    for (int64_t p = 0; p < geo.panels; ++p) {
      double middle[kLanes] = {}, sum[kLanes] = {};
      if (pass == 1) geo.gather(centre.data(), p, middle);
      for (int64_t t = 0; t < geo.tiles; ++t) {
        int64_t offset;
        const Block b = geo.block(g, t, p, offset);
        const A *m = means + t * lanes + p * kLanes, *q = squares + t * lanes + p * kLanes;
        const double base = lane_values(b, kLanes);
        for (int l = 0; l < kLanes; ++l) {
          const double n = base + (l < b.tail ? static_cast<double>(b.segments) : 0.0), d = m[l] - middle[l];
          sum[l] += pass == 0 ? n * d : q[l] + n * d * d;
        }
      }
      for (int l = 0; l < kLanes; ++l)
        if (const int64_t c = geo.channel(p * kLanes + l); c >= 0) total[c] += sum[l];
    }
    for (double& v : total) v /= static_cast<double>(std::max<int64_t>(values, 1));
  }
  for (int64_t c = 0; c < geo.channels; ++c) {
    mean[c] = static_cast<A>(centre[c]);
    rstd[c] = static_cast<A>(1.0 / std::sqrt(spread[c] + eps));
  }
}

// Of one branch and group, where float32 overflowed.
template <typename A>
void mend_statistics(const Tensor& x, const Geometry& geo, int64_t g, double eps, A* mean, A* rstd) {
  const auto finite = [](const A* row, int64_t size) { return std::all_of(row, row + size, [](A v) { return std::isfinite(v); }); };
  if (geo.values() == 0 || (finite(mean, geo.channels) && finite(rstd, geo.channels))) return;
  const ChannelValues values{geo.batch, x.size(2), x.size(3), x.stride(0), x.stride(2), x.stride(3)};
  with_dtype(x.scalar_type(), [&](auto tag) {
    for (int64_t c = 0; c < geo.channels; ++c)
      mend_moments(data<decltype(tag)>(x) + g * geo.batch * x.stride(0) + c * x.stride(1), values, eps, mean + c, rstd + c);
  });
}

}  // namespace

template <typename A>
void fill_statistics(const Node<A>& node, const std::vector<bool>& normalize, const Tensor& given, A without, A* table) {
  const Tensor values = dense(given, kScalarType<A>);
  const int64_t channels = node.geometry.channels;
  for (int64_t g = 0; g < node.geometry.groups; ++g)
    for (int64_t k = 0; k < node.count; ++k) {
      A* row = table + node.at(g, k);
      const A* from = data<A>(values) + ((given.size(0) == 1 ? 0 : g) * node.count + k) * channels;
      normalize[k] ? std::copy_n(from, channels, row) : std::fill_n(row, channels, without);
    }
}

template <typename A>
void batch_statistics_of(const Node<A>& node, const std::vector<Run>& runs, const std::vector<bool>& normalize, double eps,
                         A* mean, A* rstd) {
  const Geometry& geo = node.geometry;
  std::vector<int64_t> chosen;
  for (const Run& run : runs)
    std::copy_if(run.index, run.index + run.count, std::back_inserter(chosen), [&](int64_t k) { return normalize[k]; });
  const int64_t size = geo.tiles * geo.lanes(), normed = static_cast<int64_t>(chosen.size());
  std::vector<A> means(normed * geo.groups * size), squares(means.size());
  geo.for_units(normed, [&](int64_t g, int64_t t, int64_t p) {
    int64_t offset;
    const Block b = geo.block(g, t, p, offset);
    for (int64_t i = 0; i < normed; ++i) {
      const Tensor& x = node.branches[chosen[i]];
      const int64_t at = (i * geo.groups + g) * size + t * geo.lanes() + p * kLanes;
      with_dtype(x.scalar_type(), [&](auto tag) {
        block_moments<A>(data<decltype(tag)>(x) + offset, b, &means[at], &squares[at]);
      });
    }
  });
  torch::stable::parallel_for(0, normed * geo.groups, 4, [&](int64_t begin, int64_t end) {
    for (int64_t u = begin; u < end; ++u) {
      const int64_t g = u % geo.groups, at = node.at(g, chosen[u / geo.groups]);
      merge_moments(geo, g, means.data() + u * size, squares.data() + u * size, eps, mean + at, rstd + at);
      mend_statistics(node.branches[chosen[u / geo.groups]], geo, g, eps, mean + at, rstd + at);
    }
  });
}

template <typename A>
void linear_sum(const Node<A>& node, const std::vector<Run>& runs, const std::vector<A>& scale, const std::vector<A>& bias,
                const std::optional<Tensor>& start, const Tensor& out) {
  const Geometry& geo = node.geometry;
  geo.for_units(branches_of(runs), [&](int64_t g, int64_t t, int64_t p) {
    alignas(kRegisterBytes) A total[kTile], lanes[kTogether][kLanes];
    int64_t offset;
    const Block b = geo.block(g, t, p, offset);
    geo.gather(&bias[g * geo.channels], p, lanes[0]);
    const Lanes<A> constant = load_lanes<A>(lanes[0]);
    if (start) with_dtype(start->scalar_type(), [&](auto tag) { read_block(data<decltype(tag)>(*start) + offset, b, total); });
    for (int64_t s = 0; s < b.slots(); ++s) {
      Lanes<A> row = constant;
      if (start) each<A>([&, sum = load_lanes<A>(total + s * kLanes)](auto i) { row.v[i] += sum.v[i]; });
      store_lanes<A>(total + s * kLanes, row);
    }
    for (const Run& run : runs) {
      for (int n = 0; n < run.count; ++n) geo.gather(&scale[node.at(g, run.index[n])], p, lanes[n]);
      with_dtype(run.dtype, [&](auto tag) {
        const auto x = pointers<decltype(tag)>(node, run, offset);
        with_count(run.count, [&](auto n) { block_mix<n.value, A>(x.data(), b, lanes, total); });
      });
    }
    with_dtype(out.scalar_type(), [&](auto tag) { write_block(total, b, mutable_data<decltype(tag)>(out) + offset); });
  });
}

template <typename A>
void write_sum(const Node<A>& node, const std::vector<Run>& runs, const A* mean, const A* rstd,
               const std::optional<Tensor>& start, const Tensor& out) {
  const Geometry& geo = node.geometry;
  std::vector<A> scale = node.table(), bias = node.row();
  for (int64_t g = 0; g < geo.groups; ++g)
    for (const Run& run : runs)
      for (int64_t i = 0; i < run.count * geo.channels; ++i) {
        const int64_t k = run.index[i / geo.channels], c = i % geo.channels, at = node.at(g, k) + c;
        scale[at] = node.weights[g * node.count + k] * rstd[at];
        bias[g * geo.channels + c] -= scale[at] * mean[at];
      }
  linear_sum(node, runs, scale, bias, start, out);
}

template <typename A>
void gradient_sums(const Node<A>& node, const std::vector<Run>& runs, const Tensor& grad, const std::vector<A>& mean,
                   const std::vector<A>& rstd, std::vector<A>& g0, std::vector<A>& g1) {
  const Geometry& geo = node.geometry;
  const int64_t lanes = geo.lanes(), rows = branches_of(runs) + 1;  // the last row of the partial sums is sum g
  std::vector<A> partial(geo.groups * geo.tiles * rows * lanes);
  geo.for_units(rows, [&](int64_t g, int64_t t, int64_t p) {
    alignas(kRegisterBytes) A upstream[kTile], centre[kTogether][kLanes], product[kTogether][kLanes];
    int64_t offset;
    const Block b = geo.block(g, t, p, offset);
    with_dtype(grad.scalar_type(), [&](auto tag) { read_block(data<decltype(tag)>(grad) + offset, b, upstream); });
    A* sums = &partial[(g * geo.tiles + t) * rows * lanes + p * kLanes];
    const Block compact{1, 0, b.slots(), kLanes, kLanes, 0};
    store_lanes<A>(sums + (rows - 1) * lanes, sum_rows<A>(upstream, compact, [](const Lanes<A>& v, auto) { return v; }));
    for (const Run& run : runs) {
      for (int n = 0; n < run.count; ++n) geo.gather(&mean[node.at(g, run.index[n])], p, centre[n]);
      with_dtype(run.dtype, [&](auto tag) {
        const auto x = pointers<decltype(tag)>(node, run, offset);
        with_count(run.count, [&](auto n) { block_products<n.value, A>(upstream, x.data(), b, centre, product); });
      });
      for (int n = 0; n < run.count; ++n, sums += lanes) std::copy_n(product[n], kLanes, sums);
    }
  });
  std::vector<int64_t> index;
  for (const Run& run : runs) index.insert(index.end(), run.index, run.index + run.count);
  torch::stable::parallel_for(0, geo.groups * rows, 4, [&](int64_t begin, int64_t end) {
    std::vector<double> total(geo.channels);
    for (int64_t u = begin; u < end; ++u) {
      const int64_t g = u / rows, row = u % rows;
      std::fill(total.begin(), total.end(), 0.0);
      for (int64_t t = 0; t < geo.tiles; ++t) {
        const A* sums = &partial[((g * geo.tiles + t) * rows + row) * lanes];
        for (int64_t l = 0; l < lanes; ++l)
          if (const int64_t c = geo.channel(l); c >= 0) total[c] += sums[l];
      }
      const int64_t k = row == rows - 1 ? -1 : index[row];
      A* into = k < 0 ? &g0[g * geo.channels] : &g1[node.at(g, k)];
      const A* scale = k < 0 ? nullptr : &rstd[node.at(g, k)];
      for (int64_t c = 0; c < geo.channels; ++c) {
        const bool none = scale && scale[c] == A(0);  // see mend_moments: the sum may have overflowed, and counts nothing
        into[c] = static_cast<A>(none ? 0.0 : scale ? total[c] * scale[c] : total[c]);
      }
    }
  });
}

template <typename A>
void GradientTerms<A>::fill(const Node<A>& node, const std::vector<Run>& runs, const std::vector<bool>& centred,
                            const std::vector<A>& mean, const std::vector<A>& rstd, const std::vector<A>& g0,
                            const std::vector<A>& g1) {
  const Geometry& geo = node.geometry;
  const A share = A(1) / static_cast<A>(std::max<int64_t>(geo.values(), 1));
  for (int64_t g = 0; g < geo.groups; ++g)
    for (const Run& run : runs)
      for (int64_t i = 0; i < run.count * geo.channels; ++i) {
        const int64_t k = run.index[i / geo.channels], c = i % geo.channels, at = node.at(g, k) + c;
        by_gradient[at] = node.weights[g * node.count + k] * rstd[at];
        if (!centred[k]) continue;
        by_input[at] = -by_gradient[at] * rstd[at] * g1[at] * share;
        constant[at] = -by_gradient[at] * g0[g * geo.channels + c] * share - by_input[at] * mean[at];
      }
}

template <typename A>
void write_gradients(const Node<A>& node, const std::vector<Run>& runs, const Tensor& grad, const std::vector<bool>& centred,
                     const GradientTerms<A>& terms, const std::vector<Tensor>& grads) {
  const Geometry& geo = node.geometry;
  geo.for_units(2 * branches_of(runs), [&](int64_t g, int64_t t, int64_t p) {
    alignas(kRegisterBytes) A upstream[kTile], a[kLanes], s[kLanes], d[kLanes];
    int64_t offset;
    const Block b = geo.block(g, t, p, offset);
    with_dtype(grad.scalar_type(), [&](auto tag) { read_block(data<decltype(tag)>(grad) + offset, b, upstream); });
    for (const Run& run : runs)
      for (int n = 0; n < run.count; ++n) {
        const int64_t k = run.index[n];
        geo.gather(&terms.by_gradient[node.at(g, k)], p, a);
        geo.gather(&terms.by_input[node.at(g, k)], p, s);
        geo.gather(&terms.constant[node.at(g, k)], p, d);
        with_dtype(run.dtype, [&](auto tag) {
          using T = decltype(tag);
          const T* x = data<T>(node.branches[k]) + offset;
          T* dx = mutable_data<T>(grads[k]) + offset;
          centred[k] ? block_gradient<true, A>(upstream, x, dx, b, a, s, d) : block_gradient<false, A>(upstream, x, dx, b, a, s, d);
        });
      }
  });
}

template <typename A>
Tensor weights_gradient(const Node<A>& node, const std::vector<A>& g1, ScalarType dtype) {
  Tensor grad = layout::table(node.branches[0], {node.geometry.groups, node.count}, kScalarType<A>);
  for (int64_t i = 0; i < grad.numel(); ++i) {
    double total = 0;
    for (int64_t c = 0; c < node.geometry.channels; ++c) total += g1[i * node.geometry.channels + c];
    mutable_data<A>(grad)[i] = static_cast<A>(total);
  }
  return dense(grad, dtype);
}

#define DDARTS_INSTANTIATE(A)                                                                                          \
  template void fill_statistics(const Node<A>&, const std::vector<bool>&, const Tensor&, A, A*);                       \
  template void batch_statistics_of(const Node<A>&, const std::vector<Run>&, const std::vector<bool>&, double, A*, A*); \
  template void linear_sum(const Node<A>&, const std::vector<Run>&, const std::vector<A>&, const std::vector<A>&,      \
                           const std::optional<Tensor>&, const Tensor&);                                               \
  template void write_sum(const Node<A>&, const std::vector<Run>&, const A*, const A*, const std::optional<Tensor>&,   \
                          const Tensor&);                                                                              \
  template void gradient_sums(const Node<A>&, const std::vector<Run>&, const Tensor&, const std::vector<A>&,           \
                              const std::vector<A>&, std::vector<A>&, std::vector<A>&);                                \
  template struct GradientTerms<A>;                                                                                    \
  template void write_gradients(const Node<A>&, const std::vector<Run>&, const Tensor&, const std::vector<bool>&,      \
                                const GradientTerms<A>&, const std::vector<Tensor>&);                                  \
  template Tensor weights_gradient(const Node<A>&, const std::vector<A>&, ScalarType);

DDARTS_INSTANTIATE(float)
DDARTS_INSTANTIATE(double)

}  // namespace ddarts::DDARTS_CPU_COPY
