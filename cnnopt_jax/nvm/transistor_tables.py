"""Transistor figures of the 120 to 22 nm nodes for three device roadmaps; data, no logic.

Source: the tables of NVSim (Technology.cpp, github SEAL-UCSB/NVSim, commit 6334d00), which come
from MASTAR 5, the ITRS transistor model, by the project files named below; PMOS widths and
effective resistances there come from CACTI. NVSim notes that the 22 nm rows are guesses: PMOS
on-currents are half the NMOS ones (of the next colder column), off-currents are carried over from
32 nm. Currents stand at 300, 310, ..., 400 K; on-currents in uA/um, off-currents in nA/um.
"""

from typing import NamedTuple

TEMPERATURES_K = tuple(range(300, 401, 10))


class TransistorRow(NamedTuple):
  """One node and roadmap; units in the names, currents as in the module's docstring."""
  vdd_v: float
  vth_v: float
  gate_length_nm: float
  gate_cap_ff_per_um: float
  fringe_cap_ff_per_um: float
  oxide_cap_ff_per_um2: float
  electron_mobility_cm2_per_vs: float
  hole_mobility_cm2_per_vs: float
  pn_ratio: float
  resistance_multiplier: float
  on_n: tuple[float, ...]
  on_p: tuple[float, ...]
  off_n: tuple[float, ...]
  off_p: tuple[float, ...]


_Row = TransistorRow

TRANSISTORS = {
    (120, 'HP'): _Row(  # MASTAR HP100
        vdd_v=1.2, vth_v=0.21804, gate_length_nm=45.1, gate_cap_ff_per_um=0.741,
        fringe_cap_ff_per_um=0.24, oxide_cap_ff_per_um2=16.4, pn_ratio=2.45,
        electron_mobility_cm2_per_vs=249.59, hole_mobility_cm2_per_vs=59.52,
        resistance_multiplier=1.54,
        on_n=(960.9, 947.9, 935.1, 922.5, 910, 897.7, 885.5, 873.6, 861.8, 850.1, 838.6),
        on_p=(578.4, 567.8, 557.5, 547.4, 537.5, 527.8, 518.3, 509.1, 500, 491.1, 482.5),
        off_n=(19, 23.5, 28.6, 34.5, 41.2, 48.7, 57.1, 66.4, 76.7, 88, 100),
        off_p=(38.2, 38.4, 38.7, 39, 39.3, 39.7, 40.1, 40.5, 41, 41.6, 42.2)),
    (120, 'LSTP'): _Row(  # MASTAR LSTP100
        vdd_v=1.2, vth_v=0.50125, gate_length_nm=75, gate_cap_ff_per_um=0.862,
        fringe_cap_ff_per_um=0.25, oxide_cap_ff_per_um2=11.5, pn_ratio=2.45,
        electron_mobility_cm2_per_vs=284.97, hole_mobility_cm2_per_vs=61.82,
        resistance_multiplier=1.54,
        on_n=(422.5, 415, 407.7, 400.5, 393.6, 386.8, 380.1, 373.7, 367.4, 361.3, 355.5),
        on_p=(204.9, 200.3, 195.9, 191.7, 187.5, 183.5, 179.7, 175.9, 172.3, 168.8, 165.4),
        off_n=(0.0101, 0.0104, 0.0106, 0.0109, 0.0112, 0.0116, 0.012, 0.0124, 0.0128, 0.0132,
               0.0137),
        off_p=(0.0221, 0.0227, 0.0233, 0.024, 0.0247, 0.0254, 0.0262, 0.0271, 0.028, 0.029,
               0.0301)),
    (120, 'LOP'): _Row(  # MASTAR LOP100
        vdd_v=1, vth_v=0.3126, gate_length_nm=65, gate_cap_ff_per_um=0.634,
        fringe_cap_ff_per_um=0.25, oxide_cap_ff_per_um2=14.4, pn_ratio=2.45,
        electron_mobility_cm2_per_vs=292.43, hole_mobility_cm2_per_vs=64.53,
        resistance_multiplier=1.54,
        on_n=(531.4, 522.6, 514, 505.5, 497.3, 489.2, 481.3, 473.6, 466.1, 458.8, 451.6),
        on_p=(278.5, 272.5, 266.8, 261.2, 255.8, 250.5, 245.4, 240.4, 235.6, 231, 226.4),
        off_n=(0.969, 0.987, 1.01, 1.03, 1.05, 1.08, 1.1, 1.13, 1.16, 1.19, 1.23),
        off_p=(2.2, 2.25, 2.29, 2.34, 2.39, 2.45, 2.51, 2.57, 2.64, 2.72, 2.79)),
    (90, 'HP'): _Row(  # MASTAR HP90
        vdd_v=1.2, vth_v=0.19795, gate_length_nm=37, gate_cap_ff_per_um=0.638,
        fringe_cap_ff_per_um=0.25, oxide_cap_ff_per_um2=17.3, pn_ratio=2.45,
        electron_mobility_cm2_per_vs=243.43, hole_mobility_cm2_per_vs=58.32,
        resistance_multiplier=1.54,
        on_n=(1050.5, 1037, 1023.6, 1010.3, 997.2, 984.2, 971.4, 958.8, 946.3, 933.9, 921.7),
        on_p=(638.7, 627.5, 616.5, 605.8, 595.2, 584.9, 574.7, 564.8, 555.1, 545.5, 536.2),
        off_n=(51.87, 64.155, 78.078, 94.185, 112.476, 132.951, 155.883, 181.272, 209.391, 240.24,
               273),
        off_p=(52.6, 52.6, 52.6, 52.7, 52.8, 52.9, 53.1, 53.4, 53.6, 54, 54.3)),
    (90, 'LSTP'): _Row(  # MASTAR LSTP90
        vdd_v=1.2, vth_v=0.50236, gate_length_nm=65, gate_cap_ff_per_um=0.773,
        fringe_cap_ff_per_um=0.24, oxide_cap_ff_per_um2=11.9, pn_ratio=2.44,
        electron_mobility_cm2_per_vs=277.94, hole_mobility_cm2_per_vs=60.64,
        resistance_multiplier=1.92,
        on_n=(446.6, 438.7, 431.2, 423.8, 416.7, 409.7, 402.9, 396.3, 389.8, 383.5, 377.3),
        on_p=(221.5, 216.6, 212, 207.4, 203.1, 198.8, 194.7, 190.7, 186.9, 183.1, 179.5),
        off_n=(0.00945, 0.00967, 0.0991, 0.0102, 0.0105, 0.0108, 0.0111, 0.0114, 0.0128, 0.0132,
               0.0137),
        off_p=(0.0205, 0.021, 0.0215, 0.0221, 0.0227, 0.0234, 0.0241, 0.0248, 0.0256, 0.0265,
               0.0274)),
    (90, 'LOP'): _Row(  # MASTAR LOP90
        vdd_v=0.9, vth_v=0.26454, gate_length_nm=53, gate_cap_ff_per_um=0.795,
        fringe_cap_ff_per_um=0.24, oxide_cap_ff_per_um2=15, pn_ratio=2.54,
        electron_mobility_cm2_per_vs=309.04, hole_mobility_cm2_per_vs=67.88,
        resistance_multiplier=1.77,
        on_n=(534.5, 525.7, 517, 508.5, 500.2, 492.1, 484.1, 476.3, 468.7, 461.2, 453.9),
        on_p=(294.2, 287.8, 281.7, 275.7, 269.9, 264.2, 258.7, 253.4, 248.2, 243.2, 238.3),
        off_n=(2.74, 2.6, 2.79, 2.81, 2.84, 2.88, 2.91, 2.95, 2.99, 3.04, 3.09),
        off_p=(6.51, 6.56, 6.61, 6.67, 6.74, 6.82, 6.91, 7, 7.1, 7.21, 7.33)),
    (65, 'HP'): _Row(  # MASTAR hp-bulk-2007
        vdd_v=1.1, vth_v=0.16398, gate_length_nm=25, gate_cap_ff_per_um=0.47,
        fringe_cap_ff_per_um=0.24, oxide_cap_ff_per_um2=18.8, pn_ratio=2.41,
        electron_mobility_cm2_per_vs=445.74, hole_mobility_cm2_per_vs=113.33,
        resistance_multiplier=1.5,
        on_n=(1211.4, 1198.4, 1185.4, 1172.5, 1156.9, 1146.7, 1133.6, 1119.9, 1104.3, 1084.6, 1059),
        on_p=(888.7, 875.8, 861.7, 848.5, 835.4, 822.6, 809.9, 797.3, 784.8, 772.2, 759.4),
        off_n=(343, 373, 403, 435, 466, 499, 531, 564, 596, 625, 651),
        off_p=(568, 607, 646, 686, 726, 766, 806, 846, 886, 926, 965)),
    (65, 'LSTP'): _Row(  # MASTAR lstp-bulk-2007
        vdd_v=1.1, vth_v=0.56392, gate_length_nm=45, gate_cap_ff_per_um=0.617,
        fringe_cap_ff_per_um=0.24, oxide_cap_ff_per_um2=13.7, pn_ratio=2.23,
        electron_mobility_cm2_per_vs=457.86, hole_mobility_cm2_per_vs=102.64,
        resistance_multiplier=1.96,
        on_n=(465.4, 458.5, 451.8, 445.1, 438.4, 431.6, 423.9, 414.2, 400.6, 383.5, 367.2),
        on_p=(234.2, 229.7, 225.3, 221, 216.8, 212.7, 208.8, 204.8, 200.7, 196.6, 192.6),
        off_n=(0.0303, 0.0446, 0.0643, 0.0906, 0.125, 0.17, 0.225, 0.29, 0.361, 0.435, 0.52),
        off_p=(0.0385, 0.0564, 0.0809, 0.114, 0.157, 0.212, 0.282, 0.37, 0.478, 0.609, 0.766)),
    (65, 'LOP'): _Row(  # MASTAR lop-bulk-2007
        vdd_v=0.8, vth_v=0.32375, gate_length_nm=32, gate_cap_ff_per_um=0.601,
        fringe_cap_ff_per_um=0.24, oxide_cap_ff_per_um2=18.8, pn_ratio=2.28,
        electron_mobility_cm2_per_vs=491.59, hole_mobility_cm2_per_vs=110.95,
        resistance_multiplier=1.82,
        on_n=(562.9, 555.2, 547.5, 539.8, 532.2, 524.5, 516.1, 505.7, 491.1, 471.7, 451.6),
        on_p=(329.5, 323.3, 317.2, 311.2, 305.4, 299.8, 294.2, 288.7, 283.2, 277.5, 271.8),
        off_n=(9.08, 11.1, 13.5, 16.2, 19.2, 22.5, 26.2, 29.9, 33.5, 36.7, 39.8),
        off_p=(13, 15.7, 18.9, 22.4, 26.4, 30.8, 35.6, 10.9, 46.5, 52.6, 59.1)),
    (45, 'HP'): _Row(  # MASTAR hp-bulk-2010
        vdd_v=1, vth_v=0.12679, gate_length_nm=18, gate_cap_ff_per_um=0.678,
        fringe_cap_ff_per_um=0.17, oxide_cap_ff_per_um2=37.7, pn_ratio=2.41,
        electron_mobility_cm2_per_vs=297.7, hole_mobility_cm2_per_vs=95.27,
        resistance_multiplier=1.51,
        on_n=(1823.8, 1808.2, 1792.6, 1777, 1761.4, 1745.8, 1730.3, 1714.7, 1699.1, 1683.2, 1666.6),
        on_p=(1632.2, 1612.8, 1593.6, 1574.1, 1554.7, 1535.5, 1516.4, 1497.6, 1478.8, 1460.3,
              1441.8),
        off_n=(280, 328, 381, 439, 502, 569, 642, 720, 803, 891, 984),
        off_p=(280, 328, 381, 439, 502, 569, 642, 720, 803, 891, 984)),
    (45, 'LSTP'): _Row(  # MASTAR lstp-bulk-2010
        vdd_v=1, vth_v=0.56452, gate_length_nm=28, gate_cap_ff_per_um=0.558,
        fringe_cap_ff_per_um=0.21, oxide_cap_ff_per_um2=19.9, pn_ratio=2.23,
        electron_mobility_cm2_per_vs=456.14, hole_mobility_cm2_per_vs=96.98,
        resistance_multiplier=1.99,
        on_n=(527.5, 520.2, 512.9, 505.8, 498.6, 491.4, 483.7, 474.4, 461.2, 442.6, 421.3),
        on_p=(497.9, 489.5, 481.3, 473.2, 465.3, 457.6, 450, 442.5, 435.1, 427.5, 419.7),
        off_n=(0.0101, 0.0165, 0.0262, 0.0406, 0.0612, 0.0902, 0.13, 0.183, 0.251, 0.329, 0.41),
        off_p=(0.0101, 0.0165, 0.0262, 0.0406, 0.0612, 0.0902, 0.13, 0.183, 0.251, 0.329, 0.41)),
    (45, 'LOP'): _Row(  # MASTAR lop-bulk-2010
        vdd_v=0.7, vth_v=0.28894, gate_length_nm=22, gate_cap_ff_per_um=0.613,
        fringe_cap_ff_per_um=0.2, oxide_cap_ff_per_um2=27.9, pn_ratio=2.28,
        electron_mobility_cm2_per_vs=606.95, hole_mobility_cm2_per_vs=124.6,
        resistance_multiplier=1.76,
        on_n=(682.1, 672.3, 662.5, 652.8, 643, 632.8, 620.9, 605, 583.6, 561, 542.7),
        on_p=(772.4, 759.6, 746.9, 734.4, 722.1, 710, 698.1, 686.3, 674.4, 662.3, 650.2),
        off_n=(4.03, 5.02, 6.18, 7.51, 9.04, 10.8, 12.7, 14.7, 16.6, 18.4, 20.3),
        off_p=(4.03, 5.02, 6.18, 7.51, 9.04, 10.8, 12.7, 14.7, 16.6, 18.4, 20.3)),
    (32, 'HP'): _Row(  # MASTAR hp-bulk-2012
        vdd_v=0.9, vth_v=0.13172, gate_length_nm=14, gate_cap_ff_per_um=0.642,
        fringe_cap_ff_per_um=0.16, oxide_cap_ff_per_um2=45.9, pn_ratio=2.41,
        electron_mobility_cm2_per_vs=257.73, hole_mobility_cm2_per_vs=89.92,
        resistance_multiplier=1.49,
        on_n=(1785.8, 1771.8, 1757.8, 1743.8, 1729.8, 1715.7, 1701.7, 1687.6, 1673.5, 1659.4, 1645),
        on_p=(1713.5, 1662.8, 1620.1, 1601.6, 1583.3, 1565.1, 1547.1, 1529.1, 1511.3, 1493.7,
              1476.1),
        off_n=(834, 900, 968, 1040, 1110, 1180, 1250, 1320, 1390, 1460, 1540),
        off_p=(834, 900, 968, 1040, 1110, 1180, 1250, 1320, 1390, 1460, 1540)),
    (32, 'LSTP'): _Row(  # MASTAR lstp-bulk-2012
        vdd_v=1, vth_v=0.58181, gate_length_nm=22, gate_cap_ff_per_um=0.502,
        fringe_cap_ff_per_um=0.19, oxide_cap_ff_per_um2=21.9, pn_ratio=2.23,
        electron_mobility_cm2_per_vs=395.2, hole_mobility_cm2_per_vs=88.67,
        resistance_multiplier=1.99,
        on_n=(560, 553, 546.1, 539.3, 532.5, 525.8, 518.9, 511.5, 502.3, 489.2, 469.7),
        on_p=(549.6, 541.1, 532.8, 524.6, 516.5, 508.7, 500.9, 493.3, 485.8, 478.3, 470.7),
        off_n=(0.0302, 0.0451, 0.0657, 0.0935, 0.131, 0.179, 0.241, 0.319, 0.415, 0.529, 0.658),
        off_p=(0.0302, 0.0451, 0.0657, 0.0935, 0.131, 0.179, 0.241, 0.319, 0.415, 0.529, 0.658)),
    (32, 'LOP'): _Row(  # MASTAR lop-bulk-2012
        vdd_v=0.7, vth_v=0.27852, gate_length_nm=18, gate_cap_ff_per_um=0.554,
        fringe_cap_ff_per_um=0.2, oxide_cap_ff_per_um2=30.8, pn_ratio=2.28,
        electron_mobility_cm2_per_vs=581.62, hole_mobility_cm2_per_vs=120.3,
        resistance_multiplier=1.73,
        on_n=(760.3, 750.4, 740.5, 730.7, 720.8, 710.9, 700.3, 687.6, 670.5, 647.4, 623.6),
        on_p=(878.6, 865.1, 851.8, 838.7, 825.7, 813, 800.3, 787.9, 775.5, 763, 750.3),
        off_n=(35.7, 42.1, 49.1, 56.8, 65.1, 74.2, 84.3, 95.7, 110, 128, 148),
        off_p=(35.7, 42.1, 49.1, 56.8, 65.1, 74.2, 84.3, 95.7, 110, 128, 148)),
    (22, 'HP'): _Row(  # MASTAR hp-soi-2015
        vdd_v=0.9, vth_v=0.12872, gate_length_nm=10, gate_cap_ff_per_um=0.383,
        fringe_cap_ff_per_um=0.16, oxide_cap_ff_per_um2=38.3, pn_ratio=2,
        electron_mobility_cm2_per_vs=397.26, hole_mobility_cm2_per_vs=83.6,
        resistance_multiplier=1.45,
        on_n=(2029.9, 2009.8, 1989.6, 1969.6, 1949.8, 1930.7, 1910.5, 1891, 1871.7, 1852.5, 1834.4),
        on_p=(1014.95, 1014.95, 1004.9, 994.8, 984.8, 974.9, 965.35, 955.25, 945.5, 935.85, 926.25),
        off_n=(597.36, 609.15, 624.87, 660.24, 746.7, 1057.17, 2090.76, 4008.6, 6366.6, 10728.9,
               23973),
        off_p=(597.36, 609.15, 624.87, 660.24, 746.7, 1057.17, 2090.76, 4008.6, 6366.6, 10728.9,
               23973)),
    (22, 'LSTP'): _Row(  # MASTAR lstp-bulk-2016
        vdd_v=0.8, vth_v=0.44571, gate_length_nm=16, gate_cap_ff_per_um=0.425,
        fringe_cap_ff_per_um=0.2, oxide_cap_ff_per_um2=26.5, pn_ratio=2.23,
        electron_mobility_cm2_per_vs=731.29, hole_mobility_cm2_per_vs=111.22,
        resistance_multiplier=1.99,
        on_n=(745.5, 735.2, 725.1, 715.2, 705.4, 695.7, 686.2, 676.9, 667.7, 658.7, 649.8),
        on_p=(372.75, 372.75, 367.6, 362.55, 357.6, 352.7, 347.85, 343.1, 338.45, 333.85, 329.35),
        off_n=(0.0162366, 0.0242473, 0.0353226, 0.0502688, 0.0704301, 0.0962366, 0.12957, 0.171505,
               0.223118, 0.284409, 0.353763),
        off_p=(0.0162366, 0.0242473, 0.0353226, 0.0502688, 0.0704301, 0.0962366, 0.12957, 0.171505,
               0.223118, 0.284409, 0.353763)),
    (22, 'LOP'): _Row(  # MASTAR lop-bulk-2016
        vdd_v=0.5, vth_v=0.21739, gate_length_nm=11, gate_cap_ff_per_um=0.345,
        fringe_cap_ff_per_um=0.17, oxide_cap_ff_per_um2=31.4, pn_ratio=2.28,
        electron_mobility_cm2_per_vs=747.37, hole_mobility_cm2_per_vs=118.35,
        resistance_multiplier=1.73,
        on_n=(716.1, 704.3, 692.6, 681.2, 669.9, 658.8, 647.9, 637.1, 626.5, 616, 605.7),
        on_p=(358.05, 358.05, 352.15, 346.3, 340.6, 334.95, 329.4, 323.95, 318.55, 313.25, 308),
        off_n=(21, 24.7647, 28.8824, 33.4118, 38.2941, 43.6471, 49.5882, 56.2941, 64.7059, 75.2941,
               87.0588),
        off_p=(21, 24.7647, 28.8824, 33.4118, 38.2941, 43.6471, 49.5882, 56.2941, 64.7059, 75.2941,
               87.0588)),
}
