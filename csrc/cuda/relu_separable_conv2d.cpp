// relu_separable_conv2d on CUDA: tensors to pointers, up to 32 filters a launch, the statistics of its inputs by mixed_sum's.
#include "relu_separable_conv2d.h"

#include "../common/cuda_op.h"
#include "../common/relu_depthwise_conv2d_check.h"
#include "mixed_sum.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <optional>
#include <tuple>
#include <vector>

namespace {

using ddarts::SeparableProblem;
using torch::headeronly::ScalarType;
using torch::stable::Tensor;
namespace layout = ddarts::layout;

bool aligned(const std::vector<Tensor>& images) {
  return std::all_of(images.begin(), images.end(), [](const Tensor& x) { return reinterpret_cast<uintptr_t>(x.const_data_ptr()) % 16 == 0; });
}

// The images in one layout.
std::vector<Tensor> in_layout(const std::vector<Tensor>& images, bool last) {
  std::vector<Tensor> found;
  for (const Tensor& x : images) found.push_back(layout::as(x, last));
  return found;
}

// A call's inputs and filters as the kernels read them, and the launches that they take.
struct Call {
  bool last;
  std::vector<Tensor> inputs, depthwise, pointwise;
  std::vector<int64_t> sources, dilations;
  SeparableProblem problem{};

  Call(const std::vector<Tensor>& images, const std::vector<Tensor>& weights, const std::vector<Tensor>& points,
       const std::vector<int64_t>& from, const std::vector<int64_t>& steps, int64_t stride, int64_t groups)
      : last(layout::channels_last(images[0])), inputs(in_layout(images, last)), sources(from), dilations(steps) {
    for (const Tensor& weight : weights) depthwise.push_back(torch::stable::contiguous(weight));
    for (const Tensor& weight : points) pointwise.push_back(torch::stable::contiguous(weight));
    const Tensor& x = inputs[0];
    SeparableProblem& p = problem;
    p.n = x.size(0), p.c = x.size(1), p.h = x.size(2), p.w = x.size(3), p.out_c = p.image_c = pointwise[0].size(0);
    p.out_h = (p.h + stride - 1) / stride, p.out_w = (p.w + stride - 1) / stride, p.stride = static_cast<int>(stride);
    p.batch = std::max<int64_t>(1, p.n / groups), p.inputs = static_cast<int64_t>(inputs.size());
    p.channels_last = last, p.packets = packets(inputs, p.c), p.out_packets = last;
    for (size_t f = 0; f < depthwise.size(); ++f)
      p.pad = std::max(p.pad, static_cast<int>(dilations[f] * (depthwise[f].size(3) - 1) / 2));
  }
  // Whether images of so many channels can be read in packets.
  bool packets(const std::vector<Tensor>& images, int64_t channels) const {
    return last && channels % (images[0].scalar_type() == ScalarType::Double ? 2 : 4) == 0 && aligned(images);
  }
  ddarts::DType dtype() const { return ddarts::dtype_of(inputs[0]); }
  ScalarType sums() const { return ddarts::accumulate_dtype(inputs[0]); }
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
        if (p.source_count == ddarts::kSeparableFilters || chosen.size() == ddarts::kSeparableFilters) flush();
        const size_t now = std::min(readers.size() - done, ddarts::kSeparableFilters - chosen.size());
        p.sources[p.source_count] = {inputs[static_cast<size_t>(i)].const_data_ptr(), nullptr, nullptr, static_cast<int>(chosen.size()),
                                     static_cast<int>(now), i, done > 0, done + now == readers.size()};
        for (size_t r = done; r < done + now; ++r) {
          const size_t f = readers[r];
          ddarts::SeparableFilter& filter = p.filters[chosen.size()];
          filter = {};
          filter.depthwise = depthwise[f].const_data_ptr(), filter.depthwise_dtype = ddarts::dtype_of(depthwise[f]);
          filter.pointwise = pointwise[f].const_data_ptr(), filter.pointwise_dtype = ddarts::dtype_of(pointwise[f]);
          filter.k = static_cast<int8_t>(depthwise[f].size(3)), filter.dilation = static_cast<int8_t>(dilations[f]);
          filter.source = static_cast<int8_t>(p.source_count);
          chosen.push_back(f);
        }
        ++p.source_count, done += now;
      } while (done < readers.size());
    }
    flush();
  }
};

// Mean and rstd [G,I,C] of the inputs; or, where they are few, their moments, from which the forward makes them itself.
Tensor statistics(Call& call, int64_t groups, double eps, Tensor& mean, Tensor& rstd, cudaStream_t stream) {
  SeparableProblem& p = call.problem;
  if (p.n == 0) {  // as torch has it
    torch::stable::fill_(mean, std::numeric_limits<double>::quiet_NaN()), torch::stable::fill_(rstd, std::numeric_limits<double>::quiet_NaN());
    return mean;
  }
  ddarts::MixedShape shape{groups, p.batch, p.c, p.h * p.w, p.inputs, call.last, call.sums() == ScalarType::Double, false};
  shape.packets = ddarts::mixed_sum_packets(shape) && aligned(call.inputs);
  const int64_t rows = std::min<int64_t>(p.inputs, ddarts::kMixedBranches);
  const int64_t tiles = ddarts::mixed_sum_tiles(shape);
  const Tensor partial = torch::stable::new_empty(mean, {rows, groups, tiles, 3, p.c});
  const bool joined = rows < p.inputs || tiles > ddarts::kSeparableMomentTiles;
  if (!joined) p.moments = partial.const_data_ptr(), p.moment_tiles = tiles, p.eps = eps;
  for (int64_t begin = 0; begin < p.inputs; begin += rows) {
    ddarts::MixedTable table{};
    for (int64_t i = begin; i < std::min(p.inputs, begin + rows); ++i)
      table.branch[table.count++] = {call.inputs[static_cast<size_t>(i)].const_data_ptr(), nullptr, static_cast<int32_t>(i), static_cast<int32_t>(p.c),
                                     call.dtype(), true};
    DDARTS_CUDA_CHECK(joined ? ddarts::mixed_sum_statistics(shape, table, partial.mutable_data_ptr(), eps, mean.mutable_data_ptr(),
                                                            rstd.mutable_data_ptr(), stream)
                             : ddarts::mixed_sum_moments(shape, table, partial.mutable_data_ptr(), stream));
  }
  return partial;
}

std::tuple<std::vector<Tensor>, Tensor, Tensor> relu_separable_conv2d(
    std::vector<Tensor> inputs, std::vector<Tensor> weights, std::vector<Tensor> pointwise, std::vector<int64_t> sources,
    std::vector<int64_t> dilations, int64_t stride, bool normalize, std::optional<Tensor> given_mean, std::optional<Tensor> given_rstd,
    int64_t groups, double eps) {
  ddarts::check_relu_separable_conv2d(inputs, weights, pointwise, sources, dilations, stride, given_mean, given_rstd, groups);
  const ddarts::DeviceStream device(inputs[0]);
  Call call(inputs, weights, pointwise, sources, dilations, stride, groups);
  SeparableProblem& p = call.problem;
  const int64_t rows = normalize ? groups : 0;
  std::optional<Tensor> partial;  // until the forward has read it
  Tensor mean = torch::stable::new_empty(inputs[0], {rows, p.inputs, p.c}, call.sums());
  Tensor rstd = torch::stable::new_empty(mean, {rows, p.inputs, p.c});
  if (normalize) {
    if (given_mean.has_value()) {  // one row is that of all groups
      torch::stable::copy_(mean, *given_mean), torch::stable::copy_(rstd, *given_rstd);
    } else {
      partial = statistics(call, groups, eps, mean, rstd, device.stream());
    }
    p.mean = mean.const_data_ptr(), p.rstd = rstd.const_data_ptr();
  }
  std::vector<Tensor> outputs;
  for (size_t f = 0; f < weights.size(); ++f) outputs.push_back(call.image(p.out_c, p.out_h, p.out_w));
  call.in_launches(false, [&](SeparableProblem& q, const std::vector<size_t>& filters) {
    for (int f = 0; f < q.count; ++f) q.filters[f].data = outputs[filters[static_cast<size_t>(f)]].mutable_data_ptr();
    DDARTS_CUDA_CHECK(ddarts::separable_forward(call.dtype(), q, device.stream()));
  });
  for (size_t f = 0; f < outputs.size(); ++f)
    outputs[f] = layout::as(outputs[f], layout::channels_last(inputs[static_cast<size_t>(sources[f])]));
  return {outputs, mean, rstd};
}

// Tensors like all of `first` and then of `second`, in one piece of memory where they are of one dtype: who follows these
// gradients can then take them as one.
std::vector<Tensor> side_by_side(const std::vector<Tensor>& first, const std::vector<Tensor>& second) {
  std::vector<Tensor> like = first;
  like.insert(like.end(), second.begin(), second.end());
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

std::vector<Tensor> relu_separable_conv2d_backward(std::vector<Tensor> grads, std::vector<Tensor> inputs, std::vector<Tensor> weights,
                                                   std::vector<Tensor> pointwise, std::vector<int64_t> sources,
                                                   std::vector<int64_t> dilations, int64_t stride, bool normalize, Tensor mean,
                                                   Tensor rstd, bool batch_statistics, int64_t groups, bool input_grad,
                                                   bool weights_grad) {
  ddarts::check_relu_separable_conv2d_backward(grads, inputs, weights, pointwise, sources, dilations, stride, normalize, mean, rstd, groups);
  const ddarts::DeviceStream device(inputs[0]);
  Call call(inputs, weights, pointwise, sources, dilations, stride, groups);
  SeparableProblem& p = call.problem;
  const std::vector<Tensor> incoming = in_layout(grads, call.last);
  p.out_packets = call.packets(incoming, p.out_c);
  mean = torch::stable::contiguous(mean), rstd = torch::stable::contiguous(rstd);
  if (normalize) p.mean = mean.const_data_ptr(), p.rstd = rstd.const_data_ptr();
  const bool finishes = input_grad && normalize && batch_statistics, carries = finishes || weights.size() > ddarts::kSeparableFilters;
  std::vector<Tensor> d_inputs, carry, d_weights, d_pointwise;
  for (int64_t i = 0; input_grad && i < p.inputs; ++i) {
    d_inputs.push_back(call.image(p.c, p.h, p.w));
    if (carries) carry.push_back(layout::like(d_inputs.back(), call.sums(), call.last));
  }
  p.packets = p.packets && aligned(d_inputs) && aligned(carry);
  std::vector<int64_t> columns;
  ddarts::SeparableScratch scratch{};
  scratch.chunks = ddarts::separable_chunks(call.dtype(), p, static_cast<int64_t>(weights.size()));
  for (size_t f = 0; f < weights.size(); ++f) {
    const Tensor &weight = call.depthwise[f], &point = call.pointwise[f];
    columns.push_back(weight.size(3) * weight.size(3) * p.c + p.out_c * p.c);
  }
  if (weights_grad) d_weights = side_by_side(call.depthwise, call.pointwise);
  for (size_t f = weights.size(); f < d_weights.size(); ++f) d_pointwise.push_back(d_weights[f]);
  d_weights.resize(std::min(d_weights.size(), weights.size()));
  scratch.columns = std::accumulate(columns.begin(), columns.end(), int64_t{0});
  const Tensor partial = torch::stable::new_empty(inputs[0], {weights_grad ? scratch.chunks : 0, scratch.columns}, call.sums());
  const int64_t rows = finishes ? p.inputs : 0;
  const Tensor sums = torch::stable::new_empty(inputs[0], {rows, ddarts::separable_tiles(p), p.c, 2}, ScalarType::Double);
  const Tensor means = torch::stable::new_empty(sums, {rows, groups, 2, p.c});
  if (weights_grad) scratch.partial = partial.mutable_data_ptr();
  if (finishes) scratch.sums = static_cast<double*>(sums.mutable_data_ptr()), scratch.means = static_cast<double*>(means.mutable_data_ptr());
  int64_t column = 0;
  call.in_launches(true, [&](SeparableProblem& q, const std::vector<size_t>& filters) {
    for (int f = 0; f < q.count; ++f) {
      const size_t own = filters[static_cast<size_t>(f)];
      ddarts::SeparableFilter& filter = q.filters[f];
      filter.data = const_cast<void*>(incoming[own].const_data_ptr()), filter.column = column;
      if (weights_grad) filter.d_depthwise = d_weights[own].mutable_data_ptr(), filter.d_pointwise = d_pointwise[own].mutable_data_ptr();
      column += columns[own];
    }
    for (int s = 0; input_grad && s < q.source_count; ++s) {
      const auto i = static_cast<size_t>(q.sources[s].index);
      q.sources[s].dx = d_inputs[i].mutable_data_ptr(), q.sources[s].carry = carries ? carry[i].mutable_data_ptr() : nullptr;
    }
    DDARTS_CUDA_CHECK(ddarts::separable_backward(call.dtype(), q, input_grad, scratch, device.stream()));
  });
  for (size_t i = 0; i < d_inputs.size(); ++i) d_inputs[i] = layout::as(d_inputs[i], layout::channels_last(inputs[i]));
  d_inputs.insert(d_inputs.end(), d_weights.begin(), d_weights.end());
  d_inputs.insert(d_inputs.end(), d_pointwise.begin(), d_pointwise.end());
  return d_inputs;
}

DDARTS_CUDA_KERNELS(m) {
  m.impl("relu_separable_conv2d", TORCH_BOX(&relu_separable_conv2d));
  m.impl("relu_separable_conv2d_backward", TORCH_BOX(&relu_separable_conv2d_backward));
}

}  // namespace
