// What csrc/cuda/<op>.cpp needs to turn tensors into pointers, call its launchers and register itself.
//
// The file compiles in two ways from the same text: for real, as the CUDA implementation of ddarts_ext; and with
// -DDDARTS_EMULATE under a host compiler, as the CPU implementation of ddarts_ext_emulated, where device, stream and
// launch errors are nothing and the launchers run in the emulation. It ends with
//   DDARTS_CUDA_KERNELS(m) { m.impl("mixed_sum", TORCH_BOX(&mixed_sum)); }
// and everything above that stands in an anonymous namespace. Allocate device scratch with torch::stable::new_empty.
#pragma once

#include "dtype.h"

#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include <string>

#if !defined(DDARTS_EMULATE)
#include <cuda_runtime_api.h>
#endif

namespace ddarts {

inline DType dtype_of(const torch::stable::Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case torch::headeronly::ScalarType::Double: return DType::float64;
    case torch::headeronly::ScalarType::Float: return DType::float32;
    case torch::headeronly::ScalarType::Half: return DType::float16;
    case torch::headeronly::ScalarType::BFloat16: return DType::bfloat16;
    default: throw std::runtime_error("ddarts_ext: expected a tensor of float64, float32, float16 or bfloat16");
  }
}

#if defined(DDARTS_EMULATE)

class __attribute__((visibility("hidden"))) DeviceStream {
 public:
  explicit DeviceStream(const torch::stable::Tensor&) {}
  cudaStream_t stream() const { return nullptr; }
};

inline void check_cuda(cudaError_t error, const char* call) {
  if (error != cudaSuccess) throw std::runtime_error(std::string(call) + " failed in the emulation");
}

#define DDARTS_CUDA_KERNELS(m) STABLE_TORCH_LIBRARY_IMPL(ddarts_ext_emulated, CPU, m)

#else

// Makes the tensor's device current while it lives, and gives the stream that torch uses there.
class __attribute__((visibility("hidden"))) DeviceStream {
 public:
  explicit DeviceStream(const torch::stable::Tensor& tensor) : guard_(tensor.get_device()) {
    void* stream = nullptr;
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(tensor.get_device(), &stream));
    stream_ = static_cast<cudaStream_t>(stream);
  }
  cudaStream_t stream() const { return stream_; }

 private:
  torch::stable::accelerator::DeviceGuard guard_;
  cudaStream_t stream_ = nullptr;
};

inline void check_cuda(cudaError_t error, const char* call) {
  if (error != cudaSuccess)
    throw std::runtime_error(std::string(call) + ": " + cudaGetErrorName(error) + ": " + cudaGetErrorString(error));
}

#define DDARTS_CUDA_KERNELS(m) STABLE_TORCH_LIBRARY_IMPL(ddarts_ext, CUDA, m)

#endif
}  // namespace ddarts

#define DDARTS_CUDA_CHECK(call) ::ddarts::check_cuda((call), #call)
