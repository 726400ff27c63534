// Chooses packet width and grids of recurrent_node; see recurrent_node.cuh.
#include "recurrent_node.cuh"

namespace ddarts {
namespace {

constexpr int64_t kRecurrentParts = 64;

template <typename T, int N>
void forward(const RecurrentTable& table, const RecurrentShape& s, const void* weights, void* out, cudaStream_t stream) {
  const dim3 grid(grid_size(s.batch * (s.hidden / N), kRecurrentThreads));
  DDARTS_LAUNCH((recurrent_node_kernel<T, N>), grid, dim3(kRecurrentThreads), 0, stream, table, s,
                static_cast<const accumulate_t<T>*>(weights), static_cast<T*>(out));
}

template <typename T, int N>
void backward(const RecurrentTable& table, const RecurrentShape& s, int64_t parts, const void* weights, const void* grad,
              void* of_states, void* of_gates, void* partial, void* of_weights, cudaStream_t stream) {
  using A = accumulate_t<T>;
  const dim3 grid(static_cast<unsigned>(parts), static_cast<unsigned>(table.count));
  DDARTS_LAUNCH((recurrent_node_backward_kernel<T, N>), grid, dim3(kRecurrentThreads), 0, stream, table, s,
                static_cast<const A*>(weights), static_cast<const T*>(grad), static_cast<T*>(of_states),
                static_cast<T*>(of_gates), static_cast<A*>(partial));
  const int64_t values = static_cast<int64_t>(table.count) * s.columns;
  DDARTS_LAUNCH((recurrent_node_join<A>), dim3(static_cast<unsigned>(ceil_div(values, kJoinColumns))), join_block(), 0,
                stream, static_cast<const A*>(partial), parts, values, static_cast<A*>(of_weights));
}

}  // namespace

int64_t recurrent_node_parts(DType dtype, const RecurrentShape& s) {
  const int64_t packets = s.batch * s.hidden / (s.packets ? 16 / static_cast<int64_t>(size_of(dtype)) : 1);
  return grid_size(packets, 2 * kRecurrentThreads, kRecurrentParts);
}

cudaError_t recurrent_node(DType dtype, const RecurrentTable& table, const RecurrentShape& s, const void* weights, void* out,
                           cudaStream_t stream) {
  DDARTS_DISPATCH_DTYPE(dtype, T, {
    if (s.packets) {
      forward<T, 16 / static_cast<int>(sizeof(T))>(table, s, weights, out, stream);
    } else {
      forward<T, 1>(table, s, weights, out, stream);
    }
  })
  return cudaGetLastError();
}

cudaError_t recurrent_node_backward(DType dtype, const RecurrentTable& table, const RecurrentShape& s, const void* weights,
                                    const void* grad, void* of_states, void* of_gates, void* partial, void* of_weights,
                                    cudaStream_t stream) {
  const int64_t parts = recurrent_node_parts(dtype, s);
  DDARTS_DISPATCH_DTYPE(dtype, T, {
    if (s.packets) {
      backward<T, 16 / static_cast<int>(sizeof(T))>(table, s, parts, weights, grad, of_states, of_gates, partial, of_weights,
                                                    stream);
    } else {
      backward<T, 1>(table, s, parts, weights, grad, of_states, of_gates, partial, of_weights, stream);
    }
  })
  return cudaGetLastError();
}

}  // namespace ddarts
