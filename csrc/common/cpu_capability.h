// The instruction sets that the CPU kernels are compiled for. Without torch: bindings.cpp asks too.
#pragma once

namespace ddarts {

enum class CpuCapability : int { baseline, avx2, avx512 };

// As in build_toolchain.CAPABILITY_FLAGS and in DDARTS_CPU_CAPABILITY.
constexpr const char* kCapabilityNames[] = {"baseline", "avx2", "avx512"};

// The best capability of this processor that was compiled, or less where DDARTS_CPU_CAPABILITY in the environment says so.
CpuCapability cpu_capability();

}  // namespace ddarts
