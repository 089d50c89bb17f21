// Numbers and tables for people.

#ifndef FISHERD_CTL_FORMAT_H_
#define FISHERD_CTL_FORMAT_H_

#include <cstdint>
#include <string>
#include <vector>

namespace fisherd::ctl {

// 1234567 as "1,234,567".
std::string WithThousands(int64_t number);

// 1536 as "1.50 KiB"; below 1 KiB "17 B".
std::string Bytes(int64_t bytes);

// Rows of cells as lines of aligned columns, two spaces apart; the first row is the heading.
// Columns whose other cells are all numbers are aligned right. Cells are UTF-8, one column per code
// point.
std::string Table(const std::vector<std::vector<std::string>>& rows);

// "  62 % [############........]  12.0 MiB of 19.4 MiB, 240 MiB/s"
std::string Progress(int64_t done, int64_t total, double seconds);
// "  62 % [############........]  12 of 19"
std::string CountProgress(int64_t done, int64_t total, double seconds);

}  // namespace fisherd::ctl

#endif  // FISHERD_CTL_FORMAT_H_
