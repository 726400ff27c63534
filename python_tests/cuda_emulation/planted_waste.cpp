// The kernels of planted_waste.cuh as functions for ctypes.
#include "planted_waste.cuh"

#define EXPORT_WASTE(name, T, dynamic_bytes, ...)                                                                        \
  extern "C" __attribute__((visibility("default"))) void name(const void* x, void* out, int blocks, int threads) {        \
    DDARTS_LAUNCH((ddarts::__VA_ARGS__), dim3(blocks), dim3(threads), dynamic_bytes, nullptr, static_cast<const T*>(x),   \
                  static_cast<T*>(out));                                                                                  \
  }

EXPORT_WASTE(coalesced_copy, float, 0, coalesced_copy<float>)
EXPORT_WASTE(narrow_copy, __nv_bfloat16, 0, coalesced_copy<__nv_bfloat16>)
EXPORT_WASTE(double_copy, double, 0, coalesced_copy<double>)
EXPORT_WASTE(wide_copy, float, 0, wide_copy)
EXPORT_WASTE(struct_copy, float, 0, struct_copy)
EXPORT_WASTE(strided_read, float, 0, strided_read)
EXPORT_WASTE(broadcast_read, float, 0, broadcast_read)
EXPORT_WASTE(shifted_read, float, 0, stepped_read<1, 1>)
EXPORT_WASTE(second_read, float, 0, stepped_read<2, 0>)
EXPORT_WASTE(column_of_static, float, 0, column_of_static<32>)
EXPORT_WASTE(padded_column_of_static, float, 0, column_of_static<33>)
EXPORT_WASTE(column_of_dynamic, float, 32 * 32 * sizeof(float), column_of_dynamic<32>)
EXPORT_WASTE(padded_column_of_dynamic, float, 32 * 33 * sizeof(float), column_of_dynamic<33>)
EXPORT_WASTE(two_way_conflict, float, 0, two_way_conflict)
EXPORT_WASTE(race_in_block, float, 0, race_in_block)
EXPORT_WASTE(race_in_warp, float, 0, race_in_warp)
EXPORT_WASTE(warp_barrier, float, 0, warp_barrier)
EXPORT_WASTE(race_of_blocks, float, 0, race_of_blocks)
EXPORT_WASTE(atomic_of_blocks, float, 0, atomic_of_blocks)
EXPORT_WASTE(between_barriers, float, 0, between_barriers)
EXPORT_WASTE(ragged_loop, float, 0, ragged_loop)
