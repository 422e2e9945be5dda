# Fills a mounted volume to the brim, frees every second file, and makes $MFT grow through the gaps.
import os, sys
root = sys.argv[1]
count = 0
try:
    while True:
        with open(f'{root}/f{count:06}', 'wb') as f: f.write(b'x' * 900)
        count += 1
except OSError: pass
for i in range(0, count, 2):
    if os.path.exists(f'{root}/f{i:06}'): os.unlink(f'{root}/f{i:06}')
os.sync()
try:
    for i in range(6000):
        with open(f'{root}/r{i:06}', 'wb') as f: f.write(b'y' * 20)
except OSError: pass
