// mixed_edges on CUDA, forward: pools, first stages, second stages, statistics, sums; for all edges a launch each.
#include "mixed_edges_call.h"

namespace {

using ddarts::EdgesCall;
using torch::headeronly::ScalarType;
using torch::stable::Tensor;

using Result = std::tuple<std::vector<Tensor>, Tensor, Tensor, Tensor, Tensor>;

// A forward pass, step by step.
struct Forward {
  EdgesCall call;
  cudaStream_t stream;
  double eps;
  bool given;
  Tensor mean, rstd, inner_mean, inner_rstd;
  std::vector<Tensor> outputs, inner, pooled;  // pooled: maximum, average, argmax, as far as there are such
  std::vector<Tensor> held;                    // moments that a table names
  ddarts::EdgesJoin join{};

  Forward(const ddarts::EdgeNumbers& numbers, const Tensor& x, const Tensor& weights, cudaStream_t stream_, double eps_, bool given_, bool tf32)
      : call(numbers, x, weights, tf32), stream(stream_), eps(eps_), given(given_), mean(call.table(call.branches())),
        rstd(call.table(call.branches())), inner_mean(call.table(call.second_stages())), inner_rstd(call.table(call.second_stages())) {
    for (int64_t f = 0; f < call.firsts(); ++f) outputs.push_back(call.image());
    for (int64_t s = 0; s < call.second_stages(); ++s) inner.push_back(call.image());
    const bool maximum = call.has(ddarts::kMaximum), average = call.has(ddarts::kAverage);
    const auto nothing = [&](bool bytes) { return torch::stable::new_empty(call.x, {0}, bytes ? ScalarType::Byte : call.x.scalar_type()); };
    pooled.push_back(maximum ? call.image() : nothing(false));
    pooled.push_back(average ? call.image() : nothing(false));
    pooled.push_back(maximum ? ddarts::layout::like(pooled[0], ScalarType::Byte, call.last) : nothing(average));
  }

  Tensor moments(int64_t rows, int64_t tiles) {
    held.push_back(call.scratch({rows, call.groups, tiles, 3, call.channels}));
    return held.back();
  }
  // Where a row of moments lies.
  const void* row_of(const Tensor& table, int64_t row, int64_t tiles) const { return call.row(table, row * call.groups * tiles * 3); }

  void statistics(const void* partial, int64_t tiles, const Tensor& means, const Tensor& rstds, int64_t row) {
    if (join.count == ddarts::kMixedBranches) flush_join();
    join.entry[join.count++] = {partial, call.row(means, row), call.row(rstds, row), static_cast<int32_t>(means.size(1)), static_cast<int32_t>(tiles)};
  }
  void flush_join() {
    DDARTS_CUDA_CHECK(ddarts::mixed_edges_join(call.shape, join, eps, stream));
    join.count = 0;
  }

  void given_statistics(const Tensor& given_mean, const Tensor& given_rstd, const Tensor& given_inner_mean, const Tensor& given_inner_rstd) {
    const Tensor means = ddarts::dense(given_mean, call.sums_dtype), rstds = ddarts::dense(given_rstd, call.sums_dtype);
    ddarts::MixedTable table{};
    const auto flush = [&] {
      DDARTS_CUDA_CHECK(ddarts::mixed_sum_given(call.shape, table, means.const_data_ptr(), rstds.const_data_ptr(), means.size(0),
                                                mean.mutable_data_ptr(), rstd.mutable_data_ptr(), stream));
      table.count = 0;
    };
    for (int64_t k = 0; k < call.branches(); ++k) {
      if (table.count == ddarts::kMixedBranches) flush();
      table.branch[table.count++] = {nullptr, nullptr, static_cast<int32_t>(k), 0, call.dtype(), static_cast<bool>(call.normalize[static_cast<size_t>(k)])};
    }
    flush();
    if (call.second_stages() > 0)
      torch::stable::copy_(inner_mean, given_inner_mean), torch::stable::copy_(inner_rstd, given_inner_rstd);
  }

  void nothing() {
    Tensor means = torch::stable::empty_like(mean), rstds = torch::stable::empty_like(mean);
    ddarts::statistics_of_nothing(means, rstds, eps), ddarts::statistics_of_nothing(inner_mean, inner_rstd, eps);
    given_statistics(means, rstds, inner_mean, inner_rstd);
  }

  void pools() {
    const bool maximum = call.has(ddarts::kMaximum), average = call.has(ddarts::kAverage);
    if (!maximum && !average) return;
    DDARTS_CUDA_CHECK(ddarts::pool3x3(call.dtype(), call.x.const_data_ptr(), maximum ? pooled[0].mutable_data_ptr() : nullptr,
                                      average ? pooled[1].mutable_data_ptr() : nullptr,
                                      maximum ? pooled[2].mutable_data_ptr<uint8_t>() : nullptr,
                                      ddarts::pool_shape(call.x.size(0), call.channels, call.x.size(2), call.x.size(3), call.stride, call.last), stream));
  }

  // Of pools, and of the identity where it has a norm: they have no launch of ours that could have written their moments.
  void moments_of_the_others() {
    std::vector<int64_t> kinds;  // a row each
    ddarts::MixedTable table{};
    const auto row = [&](int64_t kind) { return std::find(kinds.begin(), kinds.end(), kind) - kinds.begin(); };
    for (size_t k = 0; k < call.kinds.size(); ++k) {
      const int64_t kind = call.kinds[k];
      if (kind >= 0 || !call.normalize[k] || row(kind) < static_cast<int64_t>(kinds.size())) continue;
      kinds.push_back(kind);
      table.branch[table.count++] = {branch(static_cast<int64_t>(k)).const_data_ptr(), nullptr, static_cast<int32_t>(k),
                                     static_cast<int32_t>(call.channels), call.dtype(), true};
    }
    const int64_t tiles = ddarts::mixed_sum_tiles(call.shape);
    const Tensor partial = moments(static_cast<int64_t>(kinds.size()), tiles);
    DDARTS_CUDA_CHECK(ddarts::mixed_sum_moments(call.shape, table, partial.mutable_data_ptr(), stream));
    for (size_t k = 0; k < call.kinds.size(); ++k)
      if (call.kinds[k] < 0)
        statistics(call.normalize[k] ? row_of(partial, row(call.kinds[k]), tiles) : nullptr, tiles, mean, rstd, static_cast<int64_t>(k));
  }

  const Tensor& branch(int64_t k) const {
    const int64_t kind = call.kinds[static_cast<size_t>(k)];
    return kind >= 0 ? outputs[static_cast<size_t>(kind)] : kind == ddarts::kSkip ? call.x : pooled[kind == ddarts::kAverage];
  }

  void convolutions(const std::vector<Tensor>& depthwise, const std::vector<Tensor>& pointwise) {
    if (call.firsts() == 0) return;
    ddarts::SeparableCall first = call.first_stages(depthwise, pointwise);
    const int64_t tiles = ddarts::separable_moment_tiles(first.problem);
    const Tensor of_first = moments(given ? 0 : call.firsts(), tiles);
    if (!given) first.problem.out_moments = of_first.mutable_data_ptr();
    first.in_launches(false, [&](ddarts::SeparableProblem& p, const std::vector<size_t>& filters) {
      for (int i = 0; i < p.count; ++i) {
        const auto place = static_cast<int64_t>(filters[static_cast<size_t>(i)]);
        const auto f = static_cast<size_t>(call.order[static_cast<size_t>(place)]);
        const Tensor& to = place < call.second_stages() ? inner[static_cast<size_t>(place)] : outputs[f];
        p.filters[i].data = to.mutable_data_ptr(), p.filters[i].row = static_cast<int32_t>(place);
      }
      DDARTS_CUDA_CHECK(ddarts::separable_forward(call.dtype(), p, stream));
    });
    if (!given)
      for (int64_t place = call.second_stages(); place < call.firsts(); ++place)
        of_convolution(call.order[static_cast<size_t>(place)], row_of(of_first, place, tiles), tiles);
    if (call.second_stages() > 0) second_stages(depthwise, pointwise, of_first, tiles);
  }

  // The statistics of a convolution's outputs.
  void of_convolution(int64_t f, const void* partial, int64_t tiles) {
    const int64_t k = call.branch_of[static_cast<size_t>(f)];
    statistics(call.normalize[static_cast<size_t>(k)] ? partial : nullptr, tiles, mean, rstd, k);
  }

  void second_stages(const std::vector<Tensor>& depthwise, const std::vector<Tensor>& pointwise, const Tensor& of_first, int64_t first_tiles) {
    ddarts::SeparableCall second = call.second_stages_of(inner, depthwise, pointwise);
    ddarts::SeparableProblem& p = second.problem;
    p.mean = inner_mean.const_data_ptr(), p.rstd = inner_rstd.const_data_ptr();
    if (!given && first_tiles <= ddarts::kSeparableMomentTiles) {
      p.moments = of_first.const_data_ptr(), p.moment_tiles = first_tiles, p.eps = eps;
    } else if (!given) {
      for (int64_t s = 0; s < call.second_stages(); ++s) statistics(row_of(of_first, s, first_tiles), first_tiles, inner_mean, inner_rstd, s);
      flush_join();
    }
    const int64_t tiles = ddarts::separable_moment_tiles(p);
    const Tensor of_second = moments(given ? 0 : call.second_stages(), tiles);
    if (!given) p.out_moments = of_second.mutable_data_ptr();
    second.in_launches(false, [&](ddarts::SeparableProblem& q, const std::vector<size_t>& filters) {
      for (int i = 0; i < q.count; ++i) {
        const size_t s = filters[static_cast<size_t>(i)];
        q.filters[i].data = outputs[static_cast<size_t>(call.seconds[s])].mutable_data_ptr(), q.filters[i].row = static_cast<int32_t>(s);
      }
      DDARTS_CUDA_CHECK(ddarts::separable_forward(call.dtype(), q, stream));
    });
    if (!given)
      for (int64_t s = 0; s < call.second_stages(); ++s) of_convolution(call.seconds[static_cast<size_t>(s)], row_of(of_second, s, tiles), tiles);
  }

  std::vector<Tensor> sums(const std::vector<Tensor>& previous) {
    std::vector<Tensor> branches, found;
    for (int64_t k = 0; k < call.branches(); ++k) branches.push_back(branch(k));
    for (int64_t t = 0; t < call.sums; ++t) found.push_back(call.image());
    ddarts::MixedShape shape = call.shape;
    shape.packets = shape.packets && ddarts::aligned(previous);
    std::vector<bool> started(found.size());
    call.in_launches(branches, std::vector<bool>(branches.size(), true), call.normalize, [&](const ddarts::MixedTable& table, ddarts::EdgesTargets& targets) {
      for (int i = 0; i < targets.count; ++i) {
        const auto t = static_cast<size_t>(targets.target[i].target);
        targets.target[i].out = found[t].mutable_data_ptr();
        targets.target[i].previous = started[t] ? found[t].const_data_ptr() : previous.empty() ? nullptr : previous[t].const_data_ptr();
        started[t] = true;
      }
      DDARTS_CUDA_CHECK(ddarts::mixed_edges_output(shape, table, targets, call.weights.const_data_ptr(), mean.const_data_ptr(),
                                                   rstd.const_data_ptr(), call.dtype(), stream));
    });
    return found;
  }
};

Result mixed_edges(Tensor x, std::vector<Tensor> previous, std::vector<Tensor> depthwise, std::vector<Tensor> pointwise, Tensor weights,
                   std::vector<int64_t> targets, std::vector<int64_t> kinds, std::vector<int64_t> dilations, std::vector<int64_t> seconds,
                   std::vector<bool> normalize, int64_t target_count, int64_t stride, std::optional<Tensor> mean, std::optional<Tensor> rstd,
                   std::optional<Tensor> inner_mean, std::optional<Tensor> inner_rstd, double eps, bool tf32) {
  const ddarts::EdgeNumbers numbers{targets, kinds, dilations, seconds, normalize, target_count, stride};
  ddarts::check_mixed_edges(x, previous, depthwise, pointwise, weights, numbers, mean, rstd, inner_mean, inner_rstd);
  const ddarts::DeviceStream device(x);
  Forward pass(numbers, x, weights, device.stream(), eps, mean.has_value(), tf32);
  if (mean.has_value()) pass.given_statistics(*mean, *rstd, *inner_mean, *inner_rstd);
  std::vector<Tensor> found;
  if (pass.call.empty()) {
    if (!mean.has_value()) pass.nothing();
    for (int64_t t = 0; t < target_count; ++t) found.push_back(pass.call.image());
  } else {
    pass.pools();
    if (!pass.given) pass.moments_of_the_others();
    pass.convolutions(depthwise, pointwise);
    if (!pass.given) pass.flush_join();
    found = pass.sums(ddarts::in_layout(previous, pass.call.last));
  }
  for (const auto* images : {&pass.outputs, &pass.inner, &pass.pooled}) found.insert(found.end(), images->begin(), images->end());
  return {found, pass.mean, pass.rstd, pass.inner_mean, pass.inner_rstd};
}

DDARTS_CUDA_KERNELS(m) { m.impl("mixed_edges", TORCH_BOX(&mixed_edges)); }

}  // namespace
