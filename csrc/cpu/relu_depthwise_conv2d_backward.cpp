// relu_depthwise_conv2d and relu_separable_conv2d on the CPU, backward: all inputs with their filters, pass after pass.

#include "../common/relu_depthwise_conv2d_check.h"
#include "relu_depthwise_conv2d_backward.h"

namespace ddarts::DDARTS_CPU_COPY {
namespace {

template <typename T, typename A>
Incoming<T, A> incoming_of(const OutputGradient& from, int64_t groups) {
  constexpr int L = kLanes<A>;
  Incoming<T, A> result{View<const T>(from.grad)};
  if (!from.branch.has_value()) return result;
  const int64_t channels = from.branch->size(1), blocks = (channels + L - 1) / L;
  result.branch = View<const T>(*from.branch);
  result.terms.assign(static_cast<size_t>(groups * blocks * 3 * L), A(0));
  for (int64_t i = 0; i < groups * 3 * channels; ++i) {
    const int64_t g = i / (3 * channels), term = i / channels % 3, c = i % channels;
    result.terms[static_cast<size_t>(((g * blocks + c / L) * 3 + term) * L + c % L)] =
        static_cast<const A*>(from.terms[static_cast<size_t>(term)])[(g * from.count + from.index) * channels + c];
  }
  return result;
}

// The gradients of the inputs, of the depthwise weights and of the pointwise weights, one after the other, as far as they
// are wanted. Statistics are [G,I,C].
template <typename T>
std::vector<Tensor> backward(const std::vector<OutputGradient>& grads, const std::vector<Tensor>& inputs,
                             const std::vector<Tensor>& weights, const std::vector<Tensor>& pointwise,
                             const std::vector<int64_t>& sources, const std::vector<int64_t>& dilations, int64_t stride,
                             bool normalize, const Tensor& mean, const Tensor& rstd, bool batch_statistics, int64_t groups,
                             bool input_grad, bool weights_grad, const std::optional<Tensor>& into, Tensor* terms) {
  using A = accumulate_t<T>;
  using Job = Backward<T, A>;
  const bool through_norm = normalize && input_grad, keep_dz = through_norm && !std::is_same_v<T, A>;
  const int64_t channels = inputs[0].size(1), count = static_cast<int64_t>(inputs.size());
  std::vector<Job> jobs;
  std::vector<std::optional<Tensor>> found(inputs.size() + weights.size() + pointwise.size());
  for (int64_t i = 0; i < count; ++i) {
    const Tensor& x = inputs[static_cast<size_t>(i)];
    const Selection read = filters_of(i, sources, weights, pointwise, dilations);
    if (read.filters.empty()) {  // none of its outputs was used
      if (input_grad) found[static_cast<size_t>(i)] = into.has_value() ? *into : layout::zeros_like(x);
      continue;
    }
    std::vector<Incoming<T, A>> incoming;
    for (const size_t f : read.filters) incoming.push_back(incoming_of<T, A>(grads[f], groups));
    jobs.push_back({make_plan(x, read.weights, read.pointwise, read.dilations, stride, kLanes<A>, false), View<const T>(x),
                    incoming, read.weights, read.pointwise, groups, input_grad, weights_grad});
    Job& job = jobs.back();
    job.allocate(x, keep_dz, into);
    std::vector<A> own_mean, own_rstd;  // [G,C]
    for (int64_t g = 0; normalize && g < groups; ++g)
      for (const auto& [from, to] : {std::pair(&mean, &own_mean), std::pair(&rstd, &own_rstd)}) {
        const A* row = static_cast<const A*>(from->const_data_ptr()) + (g * count + i) * channels;
        to->insert(to->end(), row, row + channels);
      }
    job.norms = norm_table<A>(job.p, own_mean, own_rstd);
    if (through_norm) job.means.assign(static_cast<size_t>(groups * job.p.blocks * 2 * kLanes<A>), A(0));
    if (through_norm && batch_statistics)
      job.partial_sums.assign(static_cast<size_t>(job.items() * job.p.blocks * 2 * kLanes<A>), 0.0);
    if (input_grad) found[static_cast<size_t>(i)] = *job.dx;
    const size_t own = read.filters.size();
    for (size_t f = 0; f < job.dweights.size(); ++f)
      found[inputs.size() + (f < own ? read.filters[f] : weights.size() + read.filters[f - own])] = job.dweights[f];
  }
  int64_t partial = 0;
  for (const Job& job : jobs) partial += job.partial_size();
  A* partials = reinterpret_cast<A*>(scratch<A>(6, (partial + kLanes<A> - 1) / kLanes<A>));
  for (Job& job : jobs) job.put_partials(partials), partials += job.partial_size();
  for_tasks(jobs, [](const Job& job) { return job.filters(); }, [](Job& job, int64_t f) { job.prepare(f); },
            tables_worth_a_thread(jobs));
  for_tasks(jobs, [](const Job& job) { return job.chunks() * job.p.panels; }, [&](Job& job, int64_t t) {
    keep_dz ? job.template accumulate<A>(t) : job.template accumulate<T>(t);
  });
  if (through_norm && batch_statistics)
    for_tasks(jobs, [](const Job& job) { return job.items() ? job.groups : 0; }, [](Job& job, int64_t g) { job.average(g); });
  if (terms != nullptr) {
    const int64_t size[4] = {3, groups, count, channels};
    *terms = layout::table(inputs[0], size, kScalarType<A>);
    A* tables = static_cast<A*>(terms->mutable_data_ptr());
    const int64_t table = groups * count * channels;
    for (size_t i = 0; i < jobs.size(); ++i)
      jobs[i].norm_terms(tables, tables + table, tables + 2 * table, count, static_cast<int64_t>(i));
  } else if (through_norm) {
    for_tasks(jobs, [](const Job& job) { return job.p.n * job.p.blocks; }, [&](Job& job, int64_t t) {
      keep_dz ? job.template normalize<A>(t) : job.template normalize<T>(t);
    });
  }
  for_tasks(jobs, [](const Job& job) { return static_cast<int64_t>(job.dweights.size()); },
            [](Job& job, int64_t i) { job.gather(i); });
  std::vector<Tensor> result;
  for (const auto& tensor : found)
    if (tensor.has_value()) result.push_back(*tensor);
  return result;
}

}  // namespace

std::vector<Tensor> relu_separable_conv2d_gradients(
    const std::vector<OutputGradient>& grads, const std::vector<Tensor>& inputs, const std::vector<Tensor>& weights,
    const std::vector<Tensor>& pointwise, const std::vector<int64_t>& sources, const std::vector<int64_t>& dilations,
    int64_t stride, bool normalize, const Tensor& mean, const Tensor& rstd, bool batch_statistics, int64_t groups,
    bool input_grad, bool weights_grad, const std::optional<Tensor>& into, Tensor* terms) {
#if defined(DDARTS_NARROW_COPY)
  if (half_idle(inputs[0], inputs[0].size(1)))
    return DDARTS_NARROW_COPY::relu_separable_conv2d_gradients(grads, inputs, weights, pointwise, sources, dilations, stride,
                                                               normalize, mean, rstd, batch_statistics, groups, input_grad,
                                                               weights_grad, into, terms);
#endif
  std::vector<Tensor> result;
  const Tensor means = dense(mean, mean.scalar_type()), rstds = dense(rstd, rstd.scalar_type());
  with_dtype(inputs[0].scalar_type(), [&](auto tag) {
    using scalar_t = decltype(tag);
    result = backward<scalar_t>(grads, inputs, weights, pointwise, sources, dilations, stride, normalize, means, rstds,
                                batch_statistics, groups, input_grad, weights_grad, into, terms);
  });
  return result;
}

namespace {

std::vector<OutputGradient> incoming_gradients(const std::vector<Tensor>& grads) {
  std::vector<OutputGradient> incoming;
  for (const Tensor& grad : grads) incoming.push_back({grad});
  return incoming;
}

std::vector<Tensor> relu_separable_conv2d_backward(std::vector<Tensor> grads, std::vector<Tensor> inputs,
                                                   std::vector<Tensor> weights, std::vector<Tensor> pointwise,
                                                   std::vector<int64_t> sources, std::vector<int64_t> dilations,
                                                   int64_t stride, bool normalize, Tensor mean, Tensor rstd,
                                                   bool batch_statistics, int64_t groups, bool input_grad,
                                                   bool weights_grad, bool /* tf32 */) {
  check_relu_separable_conv2d_backward(grads, inputs, weights, pointwise, sources, dilations, stride, normalize, mean, rstd,
                                       groups);
  return relu_separable_conv2d_gradients(incoming_gradients(grads), inputs, weights, pointwise, sources, dilations, stride,
                                         normalize, mean, rstd, batch_statistics, groups, input_grad, weights_grad);
}

std::tuple<Tensor, std::vector<Tensor>> relu_depthwise_conv2d_backward(
    std::vector<Tensor> grads, Tensor x, std::vector<Tensor> weights, std::vector<int64_t> dilations, int64_t stride,
    bool normalize, Tensor mean, Tensor rstd, bool batch_statistics, int64_t groups, bool input_grad, bool weights_grad) {
  check_relu_depthwise_conv2d_backward(grads, x, weights, dilations, stride, normalize, mean, rstd, groups);
  std::vector<Tensor> found = relu_separable_conv2d_gradients(
      incoming_gradients(grads), {x}, weights, {}, std::vector<int64_t>(weights.size(), 0), dilations, stride, normalize, mean,
      rstd, batch_statistics, groups, input_grad, weights_grad);
  const Tensor dx = input_grad ? found[0] : layout::table(x, {0}, x.scalar_type());
  return {dx, {found.begin() + input_grad, found.end()}};
}

}  // namespace
}  // namespace ddarts::DDARTS_CPU_COPY

DDARTS_CPU_KERNELS(m) {
  m.impl("relu_depthwise_conv2d_backward", TORCH_BOX(&ddarts::DDARTS_CPU_COPY::relu_depthwise_conv2d_backward));
  m.impl("relu_separable_conv2d_backward", TORCH_BOX(&ddarts::DDARTS_CPU_COPY::relu_separable_conv2d_backward));
}
