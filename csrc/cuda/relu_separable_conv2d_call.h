// What turns tensors into the problems of relu_separable_conv2d's launchers: up to 24 filters a launch, source by source.
#pragma once

#include "../common/cuda_op.h"
#include "../common/tensors.h"
#include "relu_separable_conv2d.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace ddarts {
namespace {

inline bool aligned(const std::vector<Tensor>& images) {
  return std::all_of(images.begin(), images.end(), [](const Tensor& x) { return reinterpret_cast<uintptr_t>(x.const_data_ptr()) % 16 == 0; });
}

// The images in one layout.
inline std::vector<Tensor> in_layout(const std::vector<Tensor>& images, bool last) {
  std::vector<Tensor> found;
  for (const Tensor& x : images) found.push_back(layout::as(x, last));
  return found;
}

// Of an empty batch mean and variance are 0.
inline void statistics_of_nothing(Tensor& mean, Tensor& rstd, double eps) {
  torch::stable::zero_(mean), torch::stable::fill_(rstd, 1.0 / std::sqrt(eps));
}

// A call's inputs and filters as the kernels read them, and the launches that they take.
struct SeparableCall {
  bool last;
  std::vector<Tensor> inputs, depthwise, pointwise;
  std::vector<int64_t> sources, dilations;
  SeparableProblem problem{};

  SeparableCall(const std::vector<Tensor>& images, const std::vector<Tensor>& weights, const std::vector<Tensor>& points,
                const std::vector<int64_t>& from, const std::vector<int64_t>& steps, int64_t stride, int64_t groups, bool tf32)
      : last(layout::channels_last(images[0])), inputs(in_layout(images, last)), sources(from), dilations(steps) {
    for (const Tensor& weight : weights) depthwise.push_back(torch::stable::contiguous(weight));
    for (const Tensor& weight : points) pointwise.push_back(torch::stable::contiguous(weight));
    const Tensor& x = inputs[0];
    SeparableProblem& p = problem;
    p.n = x.size(0), p.c = x.size(1), p.h = x.size(2), p.w = x.size(3), p.out_c = p.image_c = pointwise[0].size(0);
    p.out_h = (p.h + stride - 1) / stride, p.out_w = (p.w + stride - 1) / stride, p.stride = static_cast<int>(stride);
    p.batch = std::max<int64_t>(1, p.n / groups), p.inputs = static_cast<int64_t>(inputs.size());
    p.channels_last = last, p.packets = packets(inputs, p.c), p.out_packets = last, p.tf32 = tf32;
    for (size_t f = 0; f < depthwise.size(); ++f)
      p.pad = std::max(p.pad, static_cast<int>(dilations[f] * (depthwise[f].size(3) - 1) / 2));
  }
  // Whether images of so many channels can be read in packets.
  bool packets(const std::vector<Tensor>& images, int64_t channels) const {
    return last && channels % (images[0].scalar_type() == ScalarType::Double ? 2 : 4) == 0 && aligned(images);
  }
  DType dtype() const { return dtype_of(inputs[0]); }
  ScalarType sums() const { return accumulate_dtype(inputs[0]); }
  Tensor image(int64_t c, int64_t h, int64_t w) const { return layout::empty(inputs[0], {problem.n, c, h, w}, inputs[0].scalar_type(), last); }

  // launch(problem with the next filters and their sources, the filters' numbers) until all had their turn, source by source.
  // empty: sources that no filter reads have a turn too.
  template <typename Launch>
  void in_launches(bool empty, const Launch& launch) const {
    SeparableProblem p = problem;
    std::vector<size_t> chosen;
    const auto flush = [&] {
      p.count = static_cast<int>(chosen.size());
      if (p.source_count > 0) launch(p, chosen);
      chosen.clear(), p.source_count = 0;
    };
    for (int64_t i = 0; i < p.inputs; ++i) {
      std::vector<size_t> readers;
      for (size_t f = 0; f < sources.size(); ++f)
        if (sources[f] == i) readers.push_back(f);
      if (readers.empty() && !empty) continue;
      size_t done = 0;
      do {
        if (p.source_count == kSeparableFilters || chosen.size() == kSeparableFilters) flush();
        const size_t now = std::min(readers.size() - done, kSeparableFilters - chosen.size());
        p.sources[p.source_count] = {inputs[static_cast<size_t>(i)].const_data_ptr(), nullptr, nullptr, static_cast<int>(chosen.size()),
                                     static_cast<int>(now), i, done > 0, done + now == readers.size()};
        for (size_t r = done; r < done + now; ++r) {
          const size_t f = readers[r];
          SeparableFilter& filter = p.filters[chosen.size()];
          filter = {};
          filter.depthwise = depthwise[f].const_data_ptr(), filter.depthwise_dtype = dtype_of(depthwise[f]);
          filter.pointwise = pointwise[f].const_data_ptr(), filter.pointwise_dtype = dtype_of(pointwise[f]);
          filter.k = static_cast<int8_t>(depthwise[f].size(3)), filter.dilation = static_cast<int8_t>(dilations[f]);
          filter.source = static_cast<int8_t>(p.source_count);
          chosen.push_back(f);
        }
        ++p.source_count, done += now;
      } while (done < readers.size());
    }
    flush();
  }
  // Whether an input's filters may be in several launches.
  bool splits() const {
    const auto read_twice = [&](int64_t source) { return std::count(sources.begin(), sources.end(), source) > 1; };
    return sources.size() > kSeparableFilters && std::any_of(sources.begin(), sources.end(), read_twice);
  }
};

// The gradients of a call's inputs and of its filters (depthwise ones, then pointwise ones), written where there are tensors for
// them. batch_statistics: the inputs are behind a norm that depends on them. fill(filter, its number): whence its gradient comes.
template <typename Fill>
void separable_gradients(SeparableCall& call, const std::vector<Tensor>& d_inputs, const std::vector<Tensor>& d_filters, bool batch_statistics,
                         cudaStream_t stream, const Fill& fill) {
  SeparableProblem& p = call.problem;
  const size_t count = call.depthwise.size();
  const bool input_grad = !d_inputs.empty(), summed = input_grad && batch_statistics, finishes = summed && !p.before_norm;
  std::vector<Tensor> carry;
  if (finishes || call.splits())
    for (const Tensor& dx : d_inputs) carry.push_back(layout::like(dx, call.sums(), call.last));
  p.packets = p.packets && aligned(d_inputs) && aligned(carry);
  std::vector<int64_t> columns{0};  // where each filter's begin
  for (size_t f = 0; f < count; ++f)
    columns.push_back(columns.back() + (call.depthwise[f].size(3) * call.depthwise[f].size(3) + p.out_c) * p.c);
  SeparableScratch scratch{};
  scratch.chunks = separable_chunks(call.dtype(), p, static_cast<int64_t>(count)), scratch.columns = columns.back();
  const Tensor& like = call.inputs[0];
  const Tensor partial = torch::stable::new_empty(like, {d_filters.empty() ? 0 : scratch.chunks, scratch.columns}, call.sums());
  const Tensor sums = torch::stable::new_empty(like, {summed ? p.inputs : 0, separable_tiles(p), p.c, 2}, ScalarType::Double);
  const Tensor means = torch::stable::new_empty(partial, {finishes ? p.inputs : 0, std::max<int64_t>(p.n / p.batch, 1), 2, p.c});
  if (!d_filters.empty()) scratch.partial = partial.mutable_data_ptr();
  if (summed) scratch.sums = static_cast<double*>(sums.mutable_data_ptr());
  if (finishes) scratch.means = means.mutable_data_ptr();
  int64_t column = 0;
  call.in_launches(true, [&](SeparableProblem& q, const std::vector<size_t>& filters) {
    for (int i = 0; i < q.count; ++i) {
      SeparableFilter& filter = q.filters[i];
      const size_t f = filters[static_cast<size_t>(i)];
      fill(filter, f);
      filter.column = column, column += columns[f + 1] - columns[f];
      if (!d_filters.empty()) filter.d_depthwise = d_filters[f].mutable_data_ptr(), filter.d_pointwise = d_filters[count + f].mutable_data_ptr();
    }
    for (int s = 0; input_grad && s < q.source_count; ++s) {
      const auto i = static_cast<size_t>(q.sources[s].index);
      q.sources[s].dx = d_inputs[i].mutable_data_ptr(), q.sources[s].carry = carry.empty() ? nullptr : carry[i].mutable_data_ptr();
    }
    DDARTS_CUDA_CHECK(separable_backward(call.dtype(), q, input_grad, scratch, stream));
  });
}

// Tensors like all of `first` and then of `second`, in one piece of memory where they are of one dtype: who follows these
// gradients can then take them as one.
inline std::vector<Tensor> side_by_side(const std::vector<Tensor>& first, const std::vector<Tensor>& second) {
  std::vector<Tensor> like = first;
  like.insert(like.end(), second.begin(), second.end());
  if (like.empty()) return {};
  int64_t total = 0;
  bool alike = true;
  for (const Tensor& x : like) total += x.numel(), alike = alike && x.scalar_type() == like[0].scalar_type();
  std::vector<Tensor> made;
  if (!alike) {
    for (const Tensor& x : like) made.push_back(torch::stable::new_empty(x, x.sizes()));
    return made;
  }
  const Tensor all = torch::stable::new_empty(like[0], {total});
  int64_t begin = 0;
  for (const Tensor& x : like) {
    Tensor part = all;
    made.push_back(torch::stable::view(torch::stable::narrow(part, 0, begin, x.numel()), x.sizes()));
    begin += x.numel();
  }
  return made;
}

}  // namespace
}  // namespace ddarts
