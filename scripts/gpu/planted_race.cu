// A kernel that reads shared memory which another warp writes, without a barrier between: racecheck must say so.
#include <cuda_runtime.h>

namespace ddarts {

__global__ void planted_race(float* out) {
  __shared__ volatile float values[256];
  values[threadIdx.x] = static_cast<float>(threadIdx.x);
  out[threadIdx.x] = values[255 - threadIdx.x];
}

}  // namespace ddarts

extern "C" int ddarts_planted_race() {
  float* out = nullptr;
  if (cudaMalloc(&out, 256 * sizeof(float)) != cudaSuccess) return 1;
  ddarts::planted_race<<<1, 256>>>(out);
  const cudaError_t error = cudaDeviceSynchronize();
  cudaFree(out);
  return error == cudaSuccess ? 0 : 1;
}
